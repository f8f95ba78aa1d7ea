"""One run, from configuration to record: claim the directory, train or resume, evaluate, write.

A teacher is a run like any other: a supervised one, in the bank's folder, with random streams of its own.
"""

from __future__ import annotations

import contextlib
import functools
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from harness.config import ConfigError
from harness.config.brought import modules
from harness.config.methods import build_method
from harness.evaluation.evaluation import Evaluation, judge_all, without_infinities
from harness.evaluation.predictions import check_predictions, labels_of
from harness.run.bank import Bank, await_teacher
from harness.run.checkpoint import Checkpoints
from harness.run.crew import LOG, Crew, start_crew
from harness.run.data import changed, check_unwritten, compare_data, load_images
from harness.run.device_errors import explained, giving_back
from harness.run.folder import check_folders, finished, has_leftovers, make_writable, read_or_set_aside, tidy
from harness.run.learner import Learner
from harness.run.log import RunLog
from harness.run.network import read_network, write_network
from harness.run.outcome import describe_cost, describe_source, new_record, tell, timestamp
from harness.run.teachers import teacher_configs
from harness.run.views import CachedTeachers
from harness.runtime.console import Console
from harness.runtime.interruption import Interrupted, Stop
from harness.store import provenance
from harness.store.aside import TRAINED, forget_before, keep_trained, put_back_trained, set_aside
from harness.store.checkpoint import CHECKPOINT
from harness.store.claim import Claim
from harness.store.history import PROGRESS
from harness.store.identity import is_teacher, run_directory, run_hash
from harness.store.predictions import PREDICTIONS, write_predictions
from harness.store.record import check_files, lacks, taught_otherwise, write_record
from harness.store.weights import WEIGHTS
from harness.training import arithmetic, compilation, threads
from harness.training.device import choose_device
from harness.training.ranks import Ranks
from harness.training.state import Training
from harness.training.trainer import Diverged, Trainer

Record = dict[str, Any]


def execute(
    config: dict[str, Any],
    console: Console,
    stop: Stop = lambda: False,
    retry_teachers: bool = True,
    crew: Crew | None = None,
) -> Record:
    """The record of a run: read where it is finished, else made, resuming from a checkpoint where there is one.

    Teachers that the bank lacks are trained; those that failed before, again, unless `retry_teachers` is False.
    crew: the other processes that train with this one; None: as many as `devices` says are started.
    `stop` is asked between steps whether to checkpoint and end. Raises Interrupted then, Claimed where another process
    is at the run (or took it over while this one was silent: nothing more is written then), Diverged, ConfigError, and
    whatever else went wrong; the record says so before it is raised.
    """
    check_folders(config)
    directory = run_directory(config)
    force = config["force"] and not is_teacher(config)
    if not force and (record := finished(directory, config, console)) and not has_leftovers(directory):
        console.say(f"{directory.name}: already {record['status']}, not run again (force=true does)")
        if said := changed(record, config, console):
            console.say(f"note: {said}")
        return record
    teacher_configs(config)  # refused before anything is written
    count = crew.count if crew else config["devices"]
    device = choose_device(config["device"], 0 if count > 1 else None)
    arithmetic.prepare(config["deterministic"])
    make_writable(directory, "bank" if is_teacher(config) and config["bank"] else "runs")
    with Claim(directory) as claim, giving_back(device):
        tidy(directory)
        if force:
            set_aside(directory, anew=True)
        elif record := finished(directory, config, console):
            clean_up(directory)
            return record
        with (
            contextlib.nullcontext(crew) if crew else start_crew(count, directory) as crew,
            threads.use(max(1, threads.choose(config) // crew.beside)),
        ):
            return Run(config, directory, claim, device, console, stop, retry_teachers, crew).execute()


def clean_up(directory: Path) -> None:
    """Remove what a run keeps until it has a record."""
    for path in (*(directory / name for name in (CHECKPOINT, TRAINED, PROGRESS)), *directory.glob(LOG.format("*"))):
        path.unlink(missing_ok=True)
    forget_before(directory)


class Run:
    """One run in its claimed directory."""

    def __init__(
        self,
        config: dict[str, Any],
        directory: Path,
        claim: Claim,
        device: torch.device,
        console: Console,
        stop: Stop,
        retry_teachers: bool,
        crew: Crew,
    ):
        self.config, self.directory, self.claim, self.device = config, directory, claim, device
        self.retry_teachers, self.crew = retry_teachers, crew
        self.console, self.stop = console, lambda: stop() or claim.lost()
        self.started = time.time()
        self.earlier: dict[str, Any] = {"epochs": 0, "attempts": 0, "wall_s": 0.0, "arithmetic": []}
        self.fingerprint: str | None = None  # of the data, once they are loaded
        self.bank: Bank | None = None  # once its teachers are there
        self.taught: dict[str, str] = {}  # their weights' SHA-256 by name, before anything is learned from them
        self.learner: Learner | None = None
        # What torch.compile and CUDA graphs made of it, once it is trained.
        self.machinery: dict[str, Any] = {"compiled": None, "captured": None}
        provenance.code(modules(config)), provenance.revision()  # now: the files may change while the run goes on

    def execute(self) -> Record:
        keep_trained(self.directory)
        trained = read_or_set_aside(self.directory, TRAINED, self.console)
        self.wanted = lacks(trained, self.config["evaluate"]) if trained else self.config["evaluate"]
        title = self.directory.name.rpartition("-")[0]
        epochs = build_method(self.config).epochs(self.config["train"]["epochs"], self.config["teachers"]["size"])
        self.log = RunLog(self.directory, self.console, title, epochs)
        try:
            self.data, self.fingerprint = load_images(self.config["data"], self.device, self.console)
            self.learner = Learner(self.config, self.data, self.device, self.crew.count)
            self.evaluation = Evaluation(self.config, self.wanted, self.data, self.console)
            train_here = functools.partial(execute, crew=self.crew)
            for teacher in teacher_configs(self.config):
                await_teacher(
                    teacher, self.data, self.fingerprint, self.retry_teachers, train_here, self.console, self.stop
                )
            self.bank = Bank(self.config, self.data, self.fingerprint, self.device)
            self.taught = self.bank.weights()
            if trained:
                self.log.write("trained before, only evaluated")
                record = self.complete(trained)
            else:
                record = self.train()
            record["provenance"]["ended"] = timestamp(time.time())
            record = write_record(self.directory, record)
        except Exception as error:
            error = self.crew.explained(explained(error, self.config))
            self.claim.check()  # whatever went wrong, the files of a new owner are left alone
            if trained:  # what it knew before is not lost
                put_back_trained(self.directory)
            status = {Interrupted: "interrupted", Diverged: "diverged"}.get(type(error), "failed")
            self.log.write(traceback.format_exc() if status == "failed" else f"{status}: {error}")
            if not trained:
                write_record(self.directory, self.record(status, error))
            raise error
        finally:
            self.log.close()
        clean_up(self.directory)
        return record

    def train(self) -> Record:
        """The record of a student that is trained, or trained on from a checkpoint, and judged."""
        ranks = self.call_crew()
        self.learner.learn_from(self.bank, self.console, self.stop)
        self.started = time.time()  # what was trained or awaited for the bank is not this run's cost
        trainer, training = self.learner.begin(ranks, self.report, self.save, self.stop)
        self.steps_per_epoch = trainer.steps_per_epoch
        taught = " ".join(weights[:16] for weights in self.taught.values())
        self.checkpoints = Checkpoints(
            self.directory,
            run_hash(self.config),
            provenance.code(modules(self.config)),
            self.fingerprint,
            taught,
            self.console,
        )
        found = self.checkpoints.load()
        state = ranks.copy(found and found[1])
        if found:
            self.earlier = found[0]
            training.restore(state)
            self.log.write(f"resumed at step {training.step}, attempt {self.earlier['attempts'] + 1}")
        self.log.begin(self.earlier["epochs"])
        try:
            self.machinery = self.learner.train(trainer, training)
        finally:
            self.checkpoints.wait()
        with compilation.uncompiled(self.config["train"]["compile"]):
            return self.evaluate(trainer, training)

    def call_crew(self, trained: bool = False) -> Ranks:
        """The ranks that train this run's student, or evaluate one that was trained. Raises RankLost, Interrupted."""
        task = {
            "config": self.config,
            "fingerprint": self.fingerprint,
            "taught": self.taught,
            "wanted": self.wanted,
            "trained": str(self.directory) if trained else None,
            "beside": self.crew.beside,
        }
        return self.crew.call(task, self.device, self.stop)

    def save(self, training: Training) -> None:
        """Write the checkpoint. Raises TakenOver."""
        self.claim.check()
        epochs = training.step // self.steps_per_epoch
        self.checkpoints.save(training, epochs, self.earlier["attempts"] + 1, self.wall(), self.arithmetic())

    def report(self, epoch: dict[str, Any]) -> None:
        self.claim.check()
        self.log.epoch(epoch)

    def arithmetic(self) -> list[str]:
        """How it was computed, by this attempt and those that it goes on from."""
        now = arithmetic.name(self.device, self.config["train"]["precision"], self.crew.count)
        return list(dict.fromkeys([*self.earlier["arithmetic"], now]))

    def wall(self) -> float:
        return self.earlier["wall_s"] + time.time() - self.started

    # Evaluation and record ---------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, training: Training) -> Record:
        """Judge the chosen checkpoint, and write what the run leaves but its record."""
        network, logits = self.learner.answer(trainer, training)
        labels = labels_of(self.data)
        record = self.record("done")
        record["metrics"], record["notes"] = judge_all(logits, labels, self.bank.logits())
        record["selection"] = {"epoch": training.best.epoch, "acc": training.best.acc}
        record["cost"] = describe_cost(training, trainer, network)
        record |= self.learner.examine(self.evaluation, trainer, training, network, self.bank)
        if record["diagnostics"]:
            nll_ts = record["metrics"]["student"]["test"]["nll_ts"]
            record["diagnostics"]["dee"] = self.evaluation.worth(nll_ts, self.bank, labels)
        check_unwritten(self.config["data"], self.device, self.console)
        self.claim.check()
        record, lost = without_infinities(record)
        record["notes"] += [f"{name} is no number" for name in lost]
        about = {"model": self.config["model"], "data": self.config["data"]["name"], "classes": str(self.data.classes)}
        record["files"] = {
            PREDICTIONS: write_predictions(self.directory, logits, labels),
            WEIGHTS: write_network(self.directory, network, about),
        }
        record["cost"]["wall_s"] = self.wall()
        return record

    def complete(self, trained: Record) -> Record:
        """The record of a run that was trained before, with answers to what is asked of it since."""
        same, how = compare_data(trained["provenance"]["data"], self.data, self.fingerprint)
        if not same:
            raise ConfigError(f"these data are not those it was trained on ({how})")
        if how:
            self.log.write(how)
        if other := taught_otherwise(trained, self.taught):
            raise ConfigError(
                f"it learned from another {other} than the bank holds: that was trained again since, to other weights; "
                "force=true trains this run again, too"
            )
        check_files(self.directory, trained)
        network = read_network(self.directory, self.config, self.data).to(self.device)
        check_predictions(self.directory, network, self.data)
        found = self.evaluation.try_elsewhere(network, self.bank, self.call_crew(trained=True))
        before, now = trained["config"]["evaluate"], self.config["evaluate"]
        asked = {"shift": before["shift"] or now["shift"], "ood": list(dict.fromkeys([*before["ood"], *now["ood"]]))}
        source = describe_source(self.config, self.device)
        self.claim.check()
        more, _ = without_infinities(found)
        return {
            **trained,
            "config": {**trained["config"], "evaluate": {**before, **asked}},
            "shift": more["shift"] or trained["shift"],
            "ood": {**(trained["ood"] or {}), **(more["ood"] or {})} or None,
            "provenance": {
                **trained["provenance"],
                "asked_later": {name: source[name] for name in ("git", "code", "host", "device", "command")},
            },
        }

    def record(self, status: str, error: Exception | None = None) -> Record:
        record = new_record(self.config, status, self.wall(), tell(error, status, self.directory) if error else None)
        record["provenance"] |= {
            **describe_source(self.config, self.device),
            "started": timestamp(self.started),
            "ended": timestamp(time.time()),
            "attempts": self.earlier["attempts"] + 1,
            "arithmetic": self.arithmetic(),
            "teachers": self.bank.names if self.bank else [],
            "teacher_weights": self.taught,
            "teacher_views": self.learner is not None and isinstance(self.learner.teachers, CachedTeachers),
            "devices": self.crew.count,
            **self.machinery,
            "data": self.fingerprint,
        }
        return record
