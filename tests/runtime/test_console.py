"""What a command says, where nobody reads on, nothing takes it, or a name would steer the terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import deploy, status, verify
from harness.bench.__main__ import main as bench
from harness.data import main as data
from harness.status import RunState, report
from tests.heads import ROOT


def command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def folder_of_runs(place: Path) -> Path:
    """Names enough that no pipe holds what is said of them."""
    for i in range(400):
        (place / f"digits-preresnet_tiny-{'kd' * 100}-s0-{i:012x}").mkdir()
    return place


@pytest.mark.parametrize("option", ["--json", "--all"])
def test_a_reader_that_leaves_is_no_error(tmp_path: Path, option: str) -> None:
    said = tmp_path / "said"
    with (
        said.open("w") as errors,
        subprocess.Popen(
            command("harness.status", str(folder_of_runs(tmp_path)), option),
            cwd=ROOT, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        process.stdout.close()
    assert (process.returncode, said.read_text()) == (0, "")


def test_a_result_that_no_disk_takes_is_an_error_in_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command("harness.status", str(folder_of_runs(tmp_path)), "--json"),
            cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert ended.returncode == 2
    assert ended.stderr == "error: [Errno 28] No space left on device\n"


def test_a_name_begins_no_line_and_steers_no_terminal() -> None:
    shown = report(
        [RunState("kd\n3 runs and teachers: 3 done-000000000000", "failed", note="\x1b[2Jwhy")], show_done=False
    )
    assert shown.count("\n") == 2
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "main", [status.main, verify.main, deploy.main, lambda names: data(["folder", *names]), bench], ids=str
)
def test_an_error_is_one_plain_line_whatever_it_names(main, tmp_path, capsys):
    assert main([str(tmp_path / "no\nerror: \x1b[2J\u202efolder")]) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()


@pytest.mark.parametrize("package", ["harness", "analysis"])
def test_who_stops_a_command_sees_no_traceback(package: str) -> None:
    """Ctrl-C while it works, in the process that it really is."""
    stop = "import os, signal; work = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
    begin = {
        "harness": "from harness.runtime.console import run_command; run_command(work)",
        "analysis": "from analysis import __main__ as it; it.COMMANDS['table'] = work; raise SystemExit(it.main([]))",
    }
    ended = subprocess.run(
        [sys.executable, "-c", stop + begin[package]], cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "stopped\n")
