"""`python -m tests.soak [--minutes 20] [--runs 200] [--launcher local|slurm|both]`: everything goes wrong, for a while.

Sweeps of tiny runs are begun again and again while heads and runs are killed and files are flipped, cut, swapped,
deleted and replaced. Then nothing goes wrong any more: the same command must end well, every run must be done with the
very files that an undisturbed sweep gave, and `harness.verify` must name those finished runs, and no other, whose files
were damaged behind their backs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness.store.files import Damaged
from harness.store.record import read_record
from tests.heads import ROOT, TINY, Head, directories, events

ON_SLURM = (
    *("hydra/launcher=cpu", "hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1"),
    *("hydra.launcher.array_parallelism=4", "sweep.poll_s=2"),
)
LOCAL = ("sweep.workers=2",)
STUDENTS_OWN = ("student.safetensors", "predictions.npz")  # which nobody reads again once a student is done


class Soak:
    """One folder of runs under attack."""

    def __init__(self, runs: Path, rng: random.Random):
        self.runs, self.rng = runs, rng
        self.faults: Counter[str] = Counter()
        self.spoilt: dict[
            Path, str | None
        ] = {}  # students whose own files were damaged, with their record's digest then
        self.strikes: dict[str, Callable[[Head], bool]] = {
            "head killed": self.kill_head,
            "head hung up": self.hang_up,
            "run killed": lambda head: self.signal_run(signal.SIGKILL),
            "run stopped": lambda head: self.signal_run(signal.SIGTERM),
            "bit flipped": lambda head: self.change(self.flip),
            "file cut": lambda head: self.change(self.cut),
            "file emptied": lambda head: self.change(lambda path: path.write_bytes(b"")),
            "file of NULs": lambda head: self.change(lambda path: path.write_bytes(bytes(path.stat().st_size))),
            "file deleted": lambda head: self.change(Path.unlink),
            "files swapped": lambda head: self.swap(),
            "garbage claim": lambda head: self.litter("claim.json", b"null"),
            "garbage progress": lambda head: self.litter("progress.json", b"\xff"),
            "scratch left": lambda head: self.litter(".record.json.0123456789ab", b"{"),
        }

    def strike(self, head: Head) -> None:
        # A head takes seconds to begin: killed as often as anything else, it would never come to its students.
        weights = [0.2 if kind.startswith("head") else 1.0 for kind in self.strikes]
        (kind,) = self.rng.choices(list(self.strikes), weights)
        if self.strikes[kind](head):
            self.faults[kind] += 1

    def kill_head(self, head: Head) -> bool:
        if head.process.poll() is not None:
            return False
        head.process.kill()
        return True

    def hang_up(self, head: Head) -> bool:
        if head.process.poll() is not None:
            return False
        head.send(signal.SIGHUP)
        return True

    def signal_run(self, number: signal.Signals) -> bool:
        """Hit the process of a run that has begun and has no record."""
        for run in self.rng.sample(found := directories(self.runs), len(found)):
            began = events(run, "started")
            if began and not (run / "record.json").exists() and Path(f"/proc/{began[-1]['pid']}").exists():
                command = Path(f"/proc/{began[-1]['pid']}/cmdline").read_bytes()
                if str(run).encode() in command or b"submitit" in command:  # pids are used again
                    os.kill(began[-1]["pid"], number)
                    return True
        return False

    def victim(self) -> Path | None:
        """A file that a run left, of a kind with a digest or a schema."""
        names = (
            "record.json",
            "student.safetensors",
            "predictions.npz",
            "checkpoint.pt",
            "submission.json",
            "config.json",
        )
        files = [run / name for run in directories(self.runs) for name in names if (run / name).is_file()]
        return self.rng.choice(files) if files else None

    def change(self, damage: Callable[[Path], object]) -> bool:
        path = self.victim()
        if path is None:
            return False
        try:
            damage(path)
        except FileNotFoundError:  # it has gone meanwhile
            return False
        self.note(path)
        return True

    def flip(self, path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(content)

    def cut(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[: self.rng.randrange(max(1, path.stat().st_size))])

    def swap(self) -> bool:
        first = self.victim()
        others = [run / first.name for run in directories(self.runs) if (run / first.name).is_file()] if first else []
        if len(others) < 2:
            return False
        second = self.rng.choice([path for path in others if path != first])
        try:
            contents = first.read_bytes(), second.read_bytes()
            first.write_bytes(contents[1]), second.write_bytes(contents[0])
        except FileNotFoundError:
            return False
        self.note(first), self.note(second)
        return True

    def litter(self, name: str, content: bytes) -> bool:
        """Leave a file in the directory of a run that has a record, so that no living process owns it."""
        done = [run for run in directories(self.runs) if (run / "record.json").exists()]
        if not done:
            return False
        (self.rng.choice(done) / name).write_bytes(content)
        return True

    def note(self, path: Path) -> None:
        """Remember a student whose own files are damaged where they are not read again."""
        if path.name in STUDENTS_OWN and path.parent.parent == self.runs:
            self.spoilt[path.parent] = digest_of(path.parent)

    def still_spoilt(self) -> set[str]:
        """Those of them that were not trained again since, and whose files are not by chance what they were."""
        return {run.name for run, digest in self.spoilt.items() if digest is not None and digest == digest_of(run)}


def digest_of(run: Path) -> str | None:
    try:
        record = read_record(run)
    except Damaged:
        return None
    return record["digest"] if record and record["status"] == "done" else None


def files_of(runs: Path) -> dict[str, dict[str, str]]:
    """The digests of every finished run's files, by its directory's name."""
    places = [path.parent for path in [*runs.glob("*/record.json"), *runs.glob("teachers/*/record.json")]]
    return {
        place.name: record["files"] for place in places if (record := read_record(place)) and record["status"] == "done"
    }


def soak(launcher: tuple[str, ...], environment: dict[str, str], minutes: float, count: int, seed: int) -> list[str]:
    """Run it; returns what was wrong in the end."""
    command = ("-m", "method=ensemble_kd,supervised", f"seed=range({count // 2})", *TINY)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        calm, runs = Path(scratch, "calm"), Path(scratch, "runs")
        began = time.monotonic()
        assert Head(*command, runs=calm).ends(3600) == 0
        expected = files_of(calm)
        print(f"undisturbed: {len(expected)} runs and teachers in {time.monotonic() - began:.0f} s", flush=True)

        attack, heads = Soak(runs, random.Random(seed)), 0
        until, head = time.monotonic() + 60 * minutes, None
        while time.monotonic() < until:
            if head is None or head.process.poll() is not None:
                head, heads = Head(*command, *launcher, runs=runs, environment=environment), heads + 1
            time.sleep(attack.rng.uniform(0.2, 2.0))
            attack.strike(head)
        status = head.ends(1800)
        for _ in range(5):
            if status == 0:
                break
            head = Head(*command, *launcher, runs=runs, environment=environment)
            status, heads = head.ends(1800), heads + 1

        wrong = [] if status == 0 else [f"the command ends with {status}: {head.said[-2000:]}"]
        found = files_of(runs)
        wrong += [f"{name} is not done" for name in expected.keys() - found.keys()]
        wrong += [f"{name} has other files" for name in expected.keys() & found.keys() if expected[name] != found[name]]
        wrong += [f"a traceback in {log}" for log in runs.glob(".head-*.log") if "Traceback" in log.read_text()]
        verified = subprocess.run(
            [sys.executable, "-m", "harness.verify", str(runs)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        named = {line.partition(":")[0] for line in verified.stdout.splitlines() if "DOES NOT HOLD" in line}
        spoilt = attack.still_spoilt()
        wrong += [f"verify does not name {name}" for name in spoilt - named]
        wrong += [f"verify names {name}, which nobody damaged" for name in named - spoilt]
        attempts = sum(len(events(run, "started")) for run in directories(runs))
        faults = ", ".join(f"{number} {kind}" for kind, number in sorted(attack.faults.items()))
        print(f"{sum(attack.faults.values())} faults ({faults}); {heads} heads, {attempts} attempts, {len(found)} of "
              f"{len(expected)} done with the same files; verify names {len(named)} of {len(spoilt)} damaged since")  # fmt: skip
        if wrong and os.environ.get("SOAK_KEEP"):
            shutil.copytree(runs, os.environ["SOAK_KEEP"], symlinks=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="of faults, for each launcher")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--launcher", choices=("local", "slurm", "both"), default="both")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = []
    if options.launcher in ("local", "both"):
        print("local launcher", flush=True)
        wrong += soak(LOCAL, dict(os.environ), options.minutes, options.runs, options.seed)
    if options.launcher in ("slurm", "both"):
        from slurm.lab import Lab

        print("on SLURM", flush=True)
        with Lab() as lab:
            wrong += soak(ON_SLURM, lab.environment, options.minutes, options.runs, options.seed)
    for line in wrong:
        print(f"WRONG: {line}")
    print("soak: nothing wrong" if not wrong else f"soak: {len(wrong)} wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
