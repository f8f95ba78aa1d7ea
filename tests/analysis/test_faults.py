"""Disks that are full, folders in a file's place, terminals that know ASCII alone, readers that go away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from analysis.__main__ import CLOSED, main
from analysis.inference import calibration
from analysis.records.errors import AnalysisError
from analysis.records.outputs import write_output
from analysis.report.figures import gallery
from tests.analysis.synthetic import make_run
from tests.faults import failing

WRITERS = {
    "table": ["--format", "markdown", "-o", "OUT"], "contrasts": ["-o", "OUT"], "compare": ["-o", "OUT"],
    "report": ["-o", "OUT"], "figures": ["-o", "FOLDER"], "export": ["-o", "OUT.csv"], "freeze": ["-o", "OUT"],
    "simulate": ["-o", "OUT"],
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        for method in ("kd", "combined"):
            make_run(folder, method, seed)
    return folder


@pytest.fixture
def write(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], int]:
    """Run a command that writes into a folder; figures and the simulation are the first figure and a line."""
    everything = gallery.everything
    monkeypatch.setattr(gallery, "everything", lambda *a: [next(everything(*a))._replace(name="OUT")])
    monkeypatch.setattr("analysis.report.page.everything", lambda *_: [])
    monkeypatch.setattr(calibration, "run", lambda **_: "page")

    def run(command: str, folder: Path) -> int:
        words = [str(folder / word) if "OUT" in word else str(folder) if word == "FOLDER" else word
                 for word in WRITERS[command]]  # fmt: skip
        names = ["kd", "combined"] if command == "compare" else []
        return main([command, *words, *names, *([] if command == "simulate" else [str(runs)])])

    return run


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("warning", "wrote"))]


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_at_every_write_leaves_the_old_file(
    command: str, write: Callable[[str, Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert write(command, tmp_path) == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert before
    capsys.readouterr()
    for lasting in (False, True):
        for at in count(1):
            with failing(tmp_path, at, lasting=lasting) as disk:
                status = write(command, tmp_path)
            if not disk.failed:
                break
            found = errors(capsys)
            if disk.failed.startswith("mkdir") and not lasting:  # of a folder that is there
                assert (status, found) == (0, [])
                continue
            assert (status, len(found)) == (2, 1), (disk.failed, found)
            assert "No space left on device" in found[0]
            whole = {path: path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith(".")}
            assert {p: len(c) for p, c in whole.items()} == {p: len(c) for p, c in before.items()}
            assert whole == before or command in ("report", "freeze")  # which say when they were made
            for path in tmp_path.glob(".*"):  # what could not be removed either
                path.unlink()
        assert at > 2


@pytest.mark.parametrize("command", WRITERS)
def test_places_where_no_file_can_be(
    command: str, write: Callable[[str, Path], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert write(command, tmp_path / "file") == 2
    assert len(errors(capsys)) == 1
    for name in ("OUT", "OUT.csv", "OUT.pdf"):
        (tmp_path / "taken" / name).mkdir(parents=True)
    assert write(command, tmp_path / "taken") == 2
    (line,) = errors(capsys)
    assert "Is a directory" in line
    assert write(command, tmp_path / "new" / "folder") == 0


def test_a_run_keeps_its_files(tmp_path: Path) -> None:
    run = make_run(tmp_path, "kd", 0)
    (tmp_path / "link.json").symlink_to(run / "record.json")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for path in (run / "record.json", run / "predictions.npz", tmp_path / "link.json"):
        with pytest.raises(AnalysisError, match="is a run's own folder"):
            write_output(path, "something else")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_device_is_written_through_and_a_link_is_followed(tmp_path: Path) -> None:
    read, end = os.pipe()
    write_output(Path(f"/proc/self/fd/{end}"), "ü\ud800")
    assert os.read(read, 9) == "ü?".encode()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_output(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "a"
    with pytest.raises(AnalysisError, match=r"cannot write .*: No space left on device"):
        write_output("/dev/full", "a")


def start(*words: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "analysis", *words], env={**os.environ, **environment},
                            stdout=stdout, stderr=subprocess.PIPE)  # fmt: skip


def test_an_ascii_terminal_loses_characters_not_results(runs: Path) -> None:
    whole, wrong = start("table", str(runs)).communicate()
    assert not wrong
    for environment in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
    ):
        process = start("table", str(runs), **environment)
        text, wrong = process.communicate()
        assert (process.returncode, wrong) == (0, b"")
        assert re.findall(r"[\w.]+ \? [\d.]+", text.decode("ascii"))
        assert re.findall(r"[\w.]+", text.decode("ascii")) == re.findall(r"[\w.]+", whole.decode())
        assert text.decode("ascii").split("Verdicts")[1] == whole.decode().split("Verdicts")[1]


@pytest.mark.parametrize("command", ["table", "contrasts", "regress"])
def test_a_closed_pipe_ends_quietly_and_not_as_a_verdict(command: str, runs: Path, tmp_path: Path) -> None:
    more = []
    if command == "regress":
        assert main(["freeze", str(runs), "-o", str(tmp_path / "b.json")]) == 0
        more = ["--baseline", str(tmp_path / "b.json")]
    process = start(command, str(runs), *more)
    process.stdout.close()
    assert process.wait() == CLOSED == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""


def test_a_terminal_on_a_full_disk_is_an_error(runs: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("table", str(runs), stdout=full.fileno())
        _, said = process.communicate()
    assert (process.returncode, said) == (2, b"error: No space left on device\n")


def test_the_drawing_of_a_notebook_is_not_that_of_its_commands(runs: Path, tmp_path: Path) -> None:
    process = start("figures", str(runs), "-o", str(tmp_path), MPLBACKEND="not_installed")
    _, wrong = process.communicate()
    assert (process.returncode, wrong) == (0, b"")
    assert list(tmp_path.glob("*.svg"))
