"""The lab that is meant where no folder is named: always the same, and nobody can have put it there."""

# ruff: noqa: F401, F811  (the fixtures are imported)

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurm.lab import Lab, LabError
from slurm.remembered import choose, recall
from tests.slurm.test_lab_safety import NOBODY, ROOT, Ask, ask, home, place, tree


def test_the_folder_has_a_name_of_its_own_and_is_found_again(place: Path, home: Path) -> None:
    (place / "slurm-lab").mkdir()
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: choose(pytest.fail), range(8)))
    assert folders == {recall()}
    assert {path.name for path in place.iterdir()} == {"slurm-lab", recall().name}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    shutil.rmtree(recall())
    assert choose(pytest.fail) not in folders, "after the machine's temporary folder was emptied"


def test_a_remembered_folder_that_somebody_else_made_since_is_not_used(place: Path, ask: Ask) -> None:
    first = choose(pytest.fail)
    shutil.rmtree(first)
    first.mkdir()
    (first / "slurm.conf").write_text("SlurmctldHost=evil\n")
    for command in ("stop", "status", "env"):
        assert ask(command)[0] == 1
    told: list[str] = []
    assert choose(told.append) != first
    assert "no lab made this folder" in told[0]
    assert (first / "slurm.conf").exists()


@pytest.mark.parametrize(
    "kind", ["link", "damaged", "relative", "binary", "empty", "open file", "open folder", "nobody's"]
)
def test_what_is_remembered_is_believed_only_if_it_is_ours(kind: str, place: Path, home: Path, ask: Ask) -> None:
    folder = choose(pytest.fail)
    file = next(home.glob("folder-*"))
    if kind == "link":
        file.rename(place / "planted")
        file.symlink_to(place / "planted")
    elif kind == "nobody's":
        if os.getuid() != 0:
            pytest.skip("only root can give files to another user")
        os.chown(file, NOBODY, NOBODY)
    elif kind.startswith("open"):
        (file if kind == "open file" else home).chmod(0o777)
    else:
        two = f"{folder}\n{folder}\n".encode()
        file.write_bytes({"damaged": two, "relative": b"lab\n", "binary": b"\xff\n", "empty": b""}[kind])
    before = tree(place)
    for command in ("stop", "status", "env"):
        code, _, complaint = ask(command)
        assert (code, complaint.count("\n")) == (1, 1)
    with pytest.raises(LabError):
        choose(pytest.fail)
    assert tree(place) == before


def test_without_a_lab_nothing_is_stopped_and_nothing_is_used(ask: Ask, home: Path) -> None:
    assert ask("stop") == (0, "no lab was started here without DIR: nothing to stop\n", "")
    assert ask("env")[0] == 1
    assert ask("env", "")[0] == ask("stop", "")[0] == 1, "an empty name is not this folder"
    assert not home.exists()


@pytest.mark.slurm
def test_two_starts_at_a_time_make_one_lab(slurm_installed: None, place: Path) -> None:
    command = [sys.executable, "-m", "slurm.lab"]
    shape = ("--nodes=1", "--gpus=0", "--no-accounting")
    two = [subprocess.Popen([*command, "start", *shape], cwd=ROOT, text=True, stdout=-1, umask=0o077) for _ in "ab"]
    try:
        said = "".join(sorted(start.communicate(timeout=60)[0] for start in two))
        assert [start.returncode for start in two] == [0, 0], said
        (folder,) = place.iterdir()
        assert said.count("started in") == said.count("is running already") == 1
        assert said.count(f"1 nodes in {folder}: ") == 2
        script = f'eval "$({" ".join(command)} env)" && srun printenv SLURMD_NODENAME && {" ".join(command)} status'
        told = subprocess.run(["sh", "-c", script], cwd=ROOT, text=True, capture_output=True, timeout=60)
        assert told.stdout.startswith(f"n1\n{folder}: "), told
    finally:
        stopped = subprocess.run([*command, "stop"], cwd=ROOT, text=True, capture_output=True, timeout=60)
    assert stopped.stdout == f"{folder}: stopped\n"
    assert Lab(folder).daemons() == {}
