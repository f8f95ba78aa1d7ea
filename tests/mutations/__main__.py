"""Try the deliberate errors, and say what notices them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.mutations import Mutation, gpu, methods

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("harness", "methods", "slurm", "sweeps", "tests")
ENOUGH = 4  # red tests, after which an error counts as noticed


def run_tests(folder: Path, tests: Iterable[str]) -> list[str]:
    """Names of the tests that are red in a copy of the code. Raises RuntimeError where they could not run."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    options = f"-q -p no:cacheprovider --tb=no -rfE --maxfail={ENOUGH}".split()
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    red = re.findall(r"^(?:FAILED|ERROR) tests/(?:\w+/)*(\S+)", ended.stdout, re.MULTILINE)
    if ended.returncode not in (0, 1) and not red:
        raise RuntimeError(ended.stdout + ended.stderr)
    return red


def judge(mutation: Mutation | None, tests: Iterable[str]) -> list[str]:
    """The tests, of these, that a deliberate error, or none, turns red."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in FOLDERS:
            shutil.copytree(ROOT / name, Path(scratch, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", scratch)
        if mutation is not None:
            path = Path(scratch, mutation.file)
            text = path.read_text()
            if text.count(mutation.right) != 1:
                raise ValueError(f"{mutation.file} has {text.count(mutation.right)} times {mutation.right!r}, not once")
            path.write_text(text.replace(mutation.right, mutation.wrong))
        return run_tests(Path(scratch), tests)


def describe(red: list[str]) -> str:
    counts = Counter(name.split(".py")[0] for name in red)
    shown = ", ".join(f"{file} {count}" for file, count in counts.items())
    return f"{shown}: {red[0].removeprefix('test_')}"


def main(wanted: list[str]) -> int:
    every = [*methods.MUTATIONS, *gpu.MUTATIONS]
    chosen = [m for m in every if not wanted or any(part.lower() in m.name.lower() for part in wanted)]
    tests = dict.fromkeys(test for mutation in chosen for test in mutation.tests)
    if tests and (red := judge(None, tests)):
        print(f"red before any deliberate error: {describe(red)}")
        return 1
    unnoticed = 0
    for mutation in chosen:
        try:
            red = judge(mutation, mutation.tests)
            found = describe(red) if red else "NOT NOTICED"
        except ValueError as error:
            red, found = [], f"NOT TRIED: {error}"
        unnoticed += not red
        print(f"{mutation.name:<42} {found}", flush=True)
    print(f"{len(chosen)} deliberate errors, {unnoticed} not noticed")
    return int(bool(unnoticed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
