"""A study that looks at its runs while they come, and stops when its question is answered: which runs, and when a look."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import ConfigError
from harness.config.methods import method_defaults
from harness.runtime.console import STOPPED, Console
from harness.store.identity import run_directory
from harness.store.record import digest_of, settled
from harness.sweep.stage import Stage
from harness.sweep.sweeper import HarnessSweeper

if TYPE_CHECKING:
    import pandas as pd


Config = dict[str, Any]
EFFECTS = (0.0, 0.5, 1.0, 2.0)  # of a plan: differences in standard deviations
REPEATS = 200  # studies that are simulated for a plan


class StudySweeper(HarnessSweeper):
    """Hydra's sweeper of a sequential study."""

    def sweep(self, arguments: list[str]) -> None:
        from analysis.records.errors import AnalysisError

        try:
            status = self.study(*self.compose(arguments))
        except AnalysisError as error:
            raise ConfigError(str(error)) from error
        if status:
            sys.exit(status)

    def study(self, configs: list[Config], jobs: list[tuple[str, ...]], shapes: list[Any]) -> int:
        """Run, look, go on or stop; returns the exit status."""
        study = Study(configs)
        while True:
            wanted = study.missing()
            if wanted:
                runs = [(configs[i], jobs[i], shapes[i]) for i in wanted]
                stage = Stage(*map(list, zip(*runs, strict=True)), self.context, self.config, self.task_function)
                study.console.say(study.progress())
                status = stage.run()
                if configs[0]["harness"]["plan"]:
                    study.say_saving()
                    return status
                if left := study.missing():
                    study.console.say(f"{study.progress()}; no look: {len(left)} of its runs have not ended")
                    study.console.say("the same command goes on from there")
                    return status if status == STOPPED or configs[0]["sweep"]["detach"] else status or 1
            elif configs[0]["harness"]["plan"]:
                study.console.say("nothing to run up to the next look" if study.following() else "the study has ended")
                return 0
            if not study.following():
                study.say_end()
                return 0
            study.look()


class Study:
    """Which runs a sequential study needs next, by its configurations and its log."""

    def __init__(self, configs: list[Config]):
        from analysis.records.arms import labels
        from analysis.records.declared import parse
        from analysis.records.looks import read_looks
        from analysis.verdicts.sequential import compared

        self.configs, self.console = configs, Console()
        self.folder = Path(configs[0]["runs"])
        if configs[0]["force"]:
            raise ConfigError("force=true would replace runs that were looked at: use another folder, runs=FOLDER")
        self.block = configs[0]["study"] or {}
        self.declared = parse(self.block, "command line")
        if self.declared.sequential is None:
            raise ConfigError("this sweep declares no `study.sequential`: run it by `python -m harness -m`")
        looks = self.declared.sequential.looks
        self.seeds = list(dict.fromkeys(config["seed"] for config in configs))[: looks[-1]]
        if len(self.seeds) < looks[-1]:
            raise ConfigError(f"the last look needs {looks[-1]} seeds, the sweep has {len(self.seeds)}")
        self.sets = sorted({config["teachers"]["set"] for config in configs})
        self.arms = labels(self._table(), self.declared)
        named = {arm for comparisons in compared(self.declared).values() for c in comparisons for arm in c.weights}
        if unknown := sorted(named - set(self.arms)):
            raise ConfigError(f"the sweep has no runs of {', '.join(unknown)}, which the study compares")
        self.log = read_looks(self.folder)
        if self.log and self.log[0]["declared"] != self.digest():
            raise ConfigError(
                f"{self.folder} has looks of a study that was declared otherwise: use another runs=FOLDER"
            )
        if self.log and self.log[-1]["seeds"] != self.seeds[: len(self.log[-1]["seeds"])]:
            raise ConfigError(f"{self.folder} has looks at seeds in another order: give them in the order they had")

    def digest(self) -> str:
        """Of all that must not change between looks: the study and its runs, seeds and recipe included."""
        names = [run_directory(config).name for config in self.configs if config["seed"] in self.seeds]
        return digest_of({"study": self.block, "runs": sorted(names)})

    def following(self) -> int | None:
        """How many seeds the next look has; None where the study has ended."""
        looks = self.declared.sequential.looks
        if len(self.log) == len(looks) or (self.log and not self.open()):
            return None
        return looks[len(self.log)]

    def open(self) -> set[tuple[str, str, str]]:
        """(data, network, arm) of what still runs; before the first look, all that is compared."""
        from analysis.verdicts.sequential import compared, open_arms

        if self.log:
            return open_arms(self.log[-1]["standings"])
        arms = {arm for comparisons in compared(self.declared).values() for c in comparisons for arm in c.weights}
        places = {(config["data"]["name"], config["model"]) for config in self.configs}
        return {(*place, arm) for place in places for arm in arms}

    def missing(self) -> list[int]:
        """Which configurations the next look needs and that have not ended, by their number."""
        seeds, needed = set(self.seeds[: self.following() or 0]), self.open() if self.following() else set()
        return [
            i
            for i, (config, arm) in enumerate(zip(self.configs, self.arms, strict=True))
            if config["seed"] in seeds
            and (config["data"]["name"], config["model"], arm) in needed
            and settled(run_directory(config)) is None
        ]

    def look(self) -> None:
        """Take the next look and log it."""
        from analysis.records import mixtures
        from analysis.records.looks import append_look, read_looks
        from analysis.records.texts import few
        from analysis.report.tables.sequential import say_look
        from analysis.verdicts.sequential import entry, strangers

        runs = self._runs()
        if others := strangers(runs, self.declared):
            raise ConfigError(
                f"{len(others)} runs in {self.folder} were not made under this study ({few(others)}): nobody knows who "
                "has looked at them; use another runs=FOLDER"
            )
        mixtures.refuse(mixtures.find(runs, self.declared), ())
        self._check_past(runs)
        taken = datetime.now(timezone.utc).isoformat(timespec="seconds")
        previous = self.log[-1]["digest"] if self.log else None
        seeds = self.seeds[: self.following()]
        append_look(
            self.folder,
            entry(runs, self.declared, seeds, self.sets, len(self.log) + 1, self.digest(), previous, taken),
        )
        self.log = read_looks(self.folder)
        for line in say_look(self.log[-1]):
            self.console.say(line)

    def _check_past(self, runs: pd.DataFrame) -> None:
        """Raise ConfigError where runs that were looked at have changed."""
        from analysis.verdicts.sequential import changed

        if self.log and (other := changed(runs, self.declared, self.log[-1])):
            raise ConfigError(
                f"the runs of {other} are not those that look {self.log[-1]['look']} saw in {self.folder}: a look cannot "
                "be taken again"
            )

    def _runs(self) -> pd.DataFrame:
        """The rows of the study's runs that have a record."""
        import pandas as pd

        from analysis.records.outcomes import add_collapse
        from analysis.records.rows import read_row

        rows = []
        for config, arm in zip(self.configs, self.arms, strict=True):
            if config["seed"] in self.seeds and (found := read_row(run_directory(config))):
                rows.append(found[0] | {"arm": arm})
        return add_collapse(pd.DataFrame(rows), self.declared.primary, self.declared.collapse)

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        names = [config["method"]["name"] for config in self.configs]
        return pd.DataFrame(
            {"config": self.configs, "method": names, "method_defaults": [method_defaults(name) for name in names]}
        )

    # Words

    def progress(self) -> str:
        """Between looks: how far the runs are, and nothing of what they found."""
        left, looks = len(self.missing()), self.declared.sequential.looks
        return f"look {len(self.log) + 1} of up to {len(looks)}, at {self.following()} seeds: {left} runs to go"

    def say_end(self) -> None:
        last = self.log[-1]
        used, whole = last["runs"], self._most()
        self.console.say(
            f"the study has ended at look {last['look']}, {len(last['seeds'])} seeds: {used} runs of the {whole} that "
            f"all seeds would have taken; tables: python -m analysis {shlex.quote(str(self.folder))}"
        )

    def _most(self) -> int:
        return len({run_directory(config) for config in self.configs if config["seed"] in self.seeds})

    def say_saving(self) -> None:
        """What a plan says: the runs that may be saved, by simulation."""
        from analysis.inference.sequential_calibration import expect
        from analysis.verdicts.sequential import compared, design_of

        design = design_of(self.declared)
        m = max(map(len, compared(self.declared).values()))
        self.console.say(
            f"at most {self._most()} students; by simulation of {m} variants on one baseline that all differ"
        )
        for effect in EFFECTS:
            found = expect(design, effect, REPEATS, m, alpha=self.declared.alpha)
            share = found.runs / (design.most * (m + 1))
            self.console.say(
                f"  by {effect:g} standard deviations: about {share * self._most():.0f} students, {found.found:.0%} found"
            )
        if self.declared.margins.get(self.declared.primary):
            self.console.say("  and fewer where a difference is shown to lie within the margin")


# Hydra loads sweepers from under hydra_plugins only, as `harness.sweep.sweeper` says.
sys.modules["hydra_plugins.harness_study"] = sys.modules[__name__]
StudySweeper.__module__ = "hydra_plugins.harness_study"
