"""What the lab keeps its hands off: folders, files and processes that are not its own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slurm.folder import CONTENT, MARKER, claim
from slurm.lab import LabError, main
from slurm.processes import send

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
PARTS = ("run", "state", "db", "spool-n1", "spool-n2")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give files to another user")
Ask = Callable[..., tuple[int, str, str]]
Processes = list[subprocess.Popen[bytes]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the lab remembers its folder: not in the home of whoever runs the tests."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "slurm-lab"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory such as a lab's folder may lie in: its path is short, and everybody may enter it."""
    place = Path(tempfile.mkdtemp(prefix="place-", dir="/tmp"))
    place.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    yield place
    shutil.rmtree(place)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """A command of the lab: its exit code, what it says, and what it complains about."""
    return lambda *arguments: (main([str(argument) for argument in arguments]), *capsys.readouterr())


def lab_in(folder: Path) -> Path:
    """A folder as a lab leaves it that was killed, and what its user put beside."""
    with claim(folder):
        for name in (*PARTS, "log", "spool-photos"):
            (folder / name).mkdir()
            (folder / name / "content.log").write_text("precious")
        (folder / "slurm.conf").touch()
        (folder / "thesis.tex").touch()
    return folder


def tree(folder: Path) -> dict[str, object]:
    """All that is below a folder, with what every file says."""
    return {str(path): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def process(**variables: str) -> subprocess.Popen[bytes]:
    """A process that was started with these variables."""
    return subprocess.Popen(["/bin/sleep", "100"], env=variables, stdout=subprocess.PIPE)


@pytest.fixture
def started() -> Iterator[Processes]:
    """Processes that a test started, ended after it."""
    processes: Processes = []
    yield processes
    for one in processes:
        one.kill()
        one.communicate()


# Folders


def test_stop_deletes_what_a_lab_made_and_nothing_else(place: Path, ask: Ask) -> None:
    lab = lab_in(place / "lab")
    assert ask("stop", lab) == (0, f"{lab}: was not running\n", "")
    assert {path.name for path in lab.iterdir()} == {MARKER, "log", "slurm.conf", "spool-photos", "thesis.tex"}
    assert (lab / "log" / "content.log").read_text() == "precious"


def linked(name: str) -> Callable[[Path], Path]:
    def disguise(lab: Path) -> Path:
        (lab / name).rename(lab.parent / "elsewhere")
        (lab / name).symlink_to(lab.parent / "elsewhere")
        return lab

    return disguise


def behind_a_link(lab: Path) -> Path:
    link = lab.with_name("link")
    link.symlink_to(lab)
    return link


def without_a_marker(lab: Path) -> Path:
    (lab / MARKER).unlink()
    return lab


def with_an_empty_marker(lab: Path) -> Path:
    (lab / MARKER).write_text("")
    return lab


def marked_by(uid: int) -> Callable[[Path], Path]:
    def disguise(lab: Path) -> Path:
        (lab / MARKER).write_text(CONTENT.format(user=uid, folder=lab))
        return lab

    return disguise


def copied(lab: Path) -> Path:
    return Path(shutil.copytree(lab, lab.with_name("backup")))


def open_to(name: str, mode: int) -> Callable[[Path], Path]:
    def disguise(lab: Path) -> Path:
        (lab / name).chmod(mode)
        return lab

    return disguise


def of_nobody(name: str) -> Callable[[Path], Path]:
    def disguise(lab: Path) -> Path:
        os.chown(lab / name, NOBODY, NOBODY)
        return lab

    return disguise


DISGUISES = {
    "another user's folder": (of_nobody("."), "of nobody"),
    "another user's marker": (of_nobody(MARKER), "belongs to nobody"),
    "another user's run": (of_nobody("run"), "not what a lab put there"),
    "below another user's": (of_nobody(".."), "belongs to nobody"),
    "link to a lab": (behind_a_link, "is a link"),
    "no marker": (without_a_marker, MARKER),
    "empty marker": (with_an_empty_marker, MARKER),
    "marker of another user": (marked_by(4711), "not that of a lab that you started"),
    "copy": (copied, "not that of a lab that you started"),
    "open to all": (open_to(".", 0o777), "others may write"),
    "open to a group": (open_to(".", 0o775), "others may write"),
    "below a folder open to all": (open_to("..", 0o777), "others may write"),
    "marker open to all": (open_to(MARKER, 0o666), "others"),
    "run open to all": (open_to("run", 0o777), "others"),
} | {f"{name} is a link": (linked(name), "link") for name in (*PARTS, "log", "slurm.conf", MARKER)}


@pytest.mark.parametrize("kind", DISGUISES)
def test_a_folder_that_is_no_lab_of_ours_is_left_alone(kind: str, place: Path, ask: Ask) -> None:
    if "another user's" in kind and os.getuid() != 0:
        pytest.skip("only root can give files to another user")
    disguise, reason = DISGUISES[kind]
    lab = lab_in(place / "lab")
    folder = disguise(lab)
    before = tree(place)
    for command in ("stop", "status", "env"):
        code, said, complaint = ask(command, folder)
        assert (code, said) == (1, "false\n" if command == "env" else "")
        assert reason in complaint
        assert complaint.count("\n") == 1
    with pytest.raises(LabError, match=reason), claim(folder):
        pass
    assert tree(place) == before


@as_root
def test_another_user_does_not_stop_a_lab(place: Path) -> None:
    lab = lab_in(place / "lab")
    before = tree(place)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        code, complaint = pool.apply(stop_as_nobody, (lab,))
    assert (code, complaint) == (1, f"slurm.lab: {lab}: not a folder of yours, but of root; name another one\n")
    assert tree(place) == before


def stop_as_nobody(lab: Path) -> tuple[int, str]:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    with contextlib.redirect_stderr(io.StringIO()) as complaint:
        return main(["stop", str(lab)]), complaint.getvalue()


def test_a_start_takes_an_empty_folder_only(place: Path) -> None:
    folder = place / "mine"
    folder.mkdir()
    (folder / "slurm.conf").touch()
    with pytest.raises(LabError, match="neither empty nor a lab"), claim(folder):
        pass
    assert [path.name for path in folder.iterdir()] == ["slurm.conf"]
    (folder / "slurm.conf").unlink()
    folder.chmod(0o777)
    with claim(folder), pytest.raises(LabError, match="another start or stop"), claim(folder, patience=0.1):
        pass
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    with claim(folder):
        assert [path.name for path in folder.iterdir()] == [MARKER]


@pytest.mark.slurm
def test_it_does_not_empty_a_folder_of_somebody_else(slurm_installed: None, place: Path, ask: Ask) -> None:
    (place / "thesis.tex").touch()
    status, _, complaint = ask("start", str(place))
    assert status == 1 and "name another folder" in complaint
    assert (place / "thesis.tex").exists()


def test_a_start_that_waited_does_not_go_on_in_a_deleted_folder(place: Path) -> None:
    def begin() -> None:
        with claim(place / "lab"):
            pytest.fail("in a folder that is gone")

    with ThreadPoolExecutor() as pool:
        with claim(place / "lab"):
            second = pool.submit(begin)
            while [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()].count(
                str(place / "lab" / MARKER)
            ) < 2:
                assert not second.done()
            shutil.rmtree(place / "lab")
        with pytest.raises(LabError, match="deleted meanwhile"):
            second.result(timeout=30)


# Processes


def test_a_stop_ends_the_lab_s_processes_and_no_others(place: Path, ask: Ask, started: Processes) -> None:
    lab = lab_in(place / "lab")
    conf = f"{lab}/slurm.conf"
    others = [
        process(),
        process(SLURM_CONF=conf),  # what a user's shell starts
        process(SLURM_CONF=conf, SLURMD_NODENAME="n1", SLURM_CLUSTER_NAME="real"),  # a shell in another cluster's job
        process(SLURM_CONF=f"{place}/slurm.conf", LAB_DAEMON="slurmctld"),  # another lab's
    ]
    own = [
        process(SLURM_CONF=conf, LAB_DAEMON="slurmdbd"),
        process(SLURM_CONF=conf, LAB_DAEMON="slurmd-n1"),
        process(SLURM_CONF=conf, LAB_DAEMON="munged"),  # without a pid file: its start was interrupted
        process(SLURM_CONF=conf, SLURMD_NODENAME="n2", SLURM_CLUSTER_NAME="lab"),  # a job
    ]
    started += others + own
    # Stale pid files, as after a power cut, whose numbers were given again.
    for name, stale in zip(("slurmctld", "slurmd-n1", "slurmd-n2", "munged"), others, strict=True):
        (lab / "run" / f"{name}.pid").write_text(str(stale.pid))
    (lab / "run" / "slurmdbd.pid").write_text(str(own[0].pid))
    assert ask("stop", lab) == (0, f"{lab}: stopped\n", "")
    assert [one.wait(10) for one in own] == [-signal.SIGTERM, *3 * [-signal.SIGKILL]]
    assert [one.poll() for one in others] == 4 * [None]


def test_a_lab_whose_folder_was_deleted_is_stopped(place: Path, ask: Ask, started: Processes) -> None:
    started.append(process(SLURM_CONF=f"{place}/lab/slurm.conf", LAB_DAEMON="slurmctld"))
    assert ask("stop", place / "lab") == (0, f"{place}/lab: stopped (there is no such folder)\n", "")
    assert started[0].wait(10) == -signal.SIGKILL


def test_a_signal_reaches_only_who_is_meant(started: Processes) -> None:
    started.append(process())
    send(started[0].pid, signal.SIGKILL, lambda: False)
    assert started[0].poll() is None
    send(started[0].pid, signal.SIGTERM, lambda: True)
    assert started[0].wait(10) == -signal.SIGTERM
    send(started[0].pid, signal.SIGKILL, lambda: True)  # gone
