"""What a person finds out without reading: help, the methods, and what a shell completes."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

import methods
from harness.__main__ import main
from harness.methods import main as show_methods
from tests.heads import ROOT, wait_for

RUNS_AS_COMMAND = 'if __name__ == "__main__":'


def commands() -> list[str]:
    """The modules of harness and analysis that are commands of their own, by what their files do."""
    files = [*(ROOT / "harness").glob("*.py"), *(ROOT / "harness").glob("*/__main__.py"), ROOT / "analysis/__main__.py"]
    names = [file.relative_to(ROOT).with_suffix("").as_posix() for file in files if RUNS_AS_COMMAND in file.read_text()]
    return sorted(name.removesuffix("/__main__").replace("/", ".") for name in names)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert len(commands()) > 8
    for name in commands():
        assert re.search(rf"python -m {re.escape(name)}\b", said), name


@pytest.mark.parametrize("name", commands())
def test_every_command_helps_without_torch(name: str) -> None:
    code = (
        "import runpy, sys\nname = sys.argv.pop(1)\n"
        "try: runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: sys.exit(end.code or 3 * ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, name, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and f"python -m {name}" in done.stdout
    assert done.stderr == ""


def test_methods_are_listed_with_what_they_cost(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from methods.ensemble_kd import EnsembleKD\n"
        "@dataclass\n"
        "class Twice(EnsembleKD):\n"
        "    citation: ClassVar[str] = 'Doe, Roe. Twice. ICML, 2031.'\n"
        "    def passes(self, members): return 2 * super().passes(members)\n"
    )
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[harness.methods]\ntwice = theirs:Twice\nlost = nowhere:Lost\n")
    done = subprocess.run(
        [sys.executable, "-m", "harness.methods", "--teachers", "2"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1  # of another package, one cannot be loaded; the others are shown
    assert re.fullmatch(r"error: method=lost: nowhere:Lost cannot be loaded: .*\n", done.stderr)
    header, *rows = (re.split(r" {2,}", line) for line in done.stdout.splitlines())
    assert header == ["method", "passes", "training", "inference", "options", "source"]
    shown = {row[0]: row[1:] for row in rows}
    assert shown["twice"] == [
        "10",
        "3.33",
        "1",
        "alpha=1.0 temperature=4.0 average=softmax",
        "Doe, Roe. Twice. ICML, 2031.",
    ]
    assert shown["supervised"] == ["3", "1.00", "1", "-"]
    assert shown["combined"][:3] == ["14", "4.67", "1"]  # 4 M, and 6 to perturb
    assert shown["deep_ensemble"][:3] == ["0", "0.00", "2"]
    assert {*methods.VARIANTS, *methods.BASELINES, "twice"} == shown.keys()


@pytest.mark.parametrize(("teachers", "cannot"), [("1", {"combined", "ca_mkd", "ae_kd"}), ("9", {"ae_kd"})])
def test_a_method_that_cannot_learn_from_so_many_costs_nothing(teachers, cannot, capsys) -> None:
    assert show_methods(["--teachers", teachers]) == 0
    rows = [re.split(r" {2,}", line) for line in capsys.readouterr().out.splitlines()[1:]]
    without = {row[0] for row in rows if row[1:4] == ["-"] * 3}
    assert cannot <= without and not {"kd", "ensemble_kd", "soup", "deep_ensemble"} & without


def test_teachers_that_there_cannot_be_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        show_methods(["--teachers", "0"])
    assert end.value.code == 2 and "must be at least 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = subprocess.run([sys.executable, "-m", "harness", "--completion", "bash"], capture_output=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, b"")
    file = tmp_path_factory.mktemp("shell") / "completion.bash"
    file.write_bytes(done.stdout)
    return file


def test_no_other_shell_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--completion", "fish"]) == 2
    assert capsys.readouterr().err == "error: --completion is for bash, not 'fish'\n"


COMPLETED = {
    "python -m harness metho": {"method=", "method.alpha=", "method.step="},
    "python -m harness method=comb": {"combined"},
    "python3 -m harness -m method=kd,ens": {"kd,ensemble_kd"},
    "python -m harness teachers.train.sched": {"teachers.train.schedule="},
    "python -m harness -m train.schedule=cosine,li": {"cosine,linear"},
    "python -m harness train.nesterov=": {"true", "false"},
    "python -m harness hydra/launcher=submitit_s": {"submitit_slurm"},
    "python -m harness hydra.launcher.mem": {"hydra.launcher.mem_gb="},
    "python -m harness.study +sweep=digits_c": {"digits_collapse"},
    "python -m harness --compl": {"--completion"},
    "python -m harness.sta": {"harness.status"},
    "python -m an": {"analysis"},
    "python -m harness seed=": set(),
    "python -m harness [=": set(),
    "python -m pytest test": set(),
    "python script.py method=": set(),
}


@pytest.mark.parametrize("line", COMPLETED)
def test_a_shell_completes_options_values_and_commands(line: str, script: Path) -> None:
    code = 'source "$1"; COMP_LINE=$2 COMP_POINT=${#2}; _harness; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code, "bash", str(script), line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = {*done.stdout.split()}
    assert COMPLETED[line] <= found and (COMPLETED[line] or not found)
    if "=" in line:
        assert found == COMPLETED[line]


def test_a_key_press_completes_in_a_terminal(script: Path) -> None:
    """A real bash with its readline, whose python only says what it was given."""
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"], stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "TERM": "dumb", "PS1": "$ "},
    )  # fmt: skip
    os.close(follower)
    said = b""

    def shown(text: bytes) -> bool:
        nonlocal said
        if select.select([leader], [], [], 0)[0]:
            said += os.read(leader, 4096)
        return text in said

    try:
        os.write(leader, b"source '%s'; python() { printf '<%%s>' \"$@\"; }; echo rea''dy\n" % os.fsencode(script))
        wait_for(lambda: shown(b"ready\r\n"), "the shell", 60)
        os.write(leader, b"python -m harness -m teachers.tr\tsched\tcos\t,lin\t method=kd,comb\t\n")
        wait_for(
            lambda: shown(b"<-m><harness><-m><teachers.train.schedule=cosine,linear><method=kd,combined>"),
            "the line",
            60,
        )
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)
