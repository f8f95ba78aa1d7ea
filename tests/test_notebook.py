"""`harness.run` and `harness.sweep`: the command line from Python, in a process and in a real kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

import harness
from harness.__main__ import main
from harness.config import ConfigError
from harness.evaluation.predictions import check_predictions
from harness.run.learner import Learner
from harness.runtime.console import Console
from harness.training.data import load
from tests.heads import PATIENCE_S, wait_for

NOTEBOOK = Path(__file__).parents[1] / "sweeps" / "first_steps.ipynb"
TINY: dict[str, Any] = {"train": {"name": "smoke", "steps_per_epoch": 3}, "teachers": {"size": 2}}

# What is asked for from Python, and on the command line.
ALIKE = {
    "groups": (
        {"method": "all", "seed": range(2), "train": "smoke"},
        ["method=all", "seed=0,1", "train=smoke"],
    ),
    "names and nested options": (
        {"method": {"name": "combined", "step": [1, 2.5]}, "teachers": {"size": 3, "train": {"epochs": [5, 6]}}},
        ["method=combined", "method.step=1,2.5", "teachers.size=3", "teachers.train.epochs=5,6"],
    ),
    "dots, words and NumPy": (
        {"0": ["train=smoke", "+sweep=digits_factorial"], "train.lr": np.array([0.1, 0.2]), "seed": np.int64(3)},
        ["train=smoke", "+sweep=digits_factorial", "train.lr=0.1,0.2", "seed=3"],
    ),
    "texts and lists that are values": (
        {"study": {"question": "a, or b?"}, "evaluate": {"ood": [["svhn", "cifar10"], []]}, "bank": None},
        ["study={question: 'a, or b?'}", "evaluate.ood=[svhn,cifar10],[]", "bank=null"],
    ),
    "texts that read others": (
        {"teachers": {"set": "${seed}"}, "method": "kd", "seed": (0, 1), "hydra/launcher": "gpu"},
        ["teachers.set=${seed}", "method=kd", "seed=0,1", "hydra/launcher=gpu"],
    ),
}


def test_sets_of_ones_own_go_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "own"))
    run = harness.run(method="supervised", data="own:stripes", runs=tmp_path, **TINY)
    runs = harness.sweep(method="supervised", data=["digits", "own:stripes"], runs=tmp_path, **TINY)
    assert [each.config["data"]["name"] for each in runs] == ["digits", "own:stripes"]
    assert runs[1]["digest"] == run["digest"]
    with pytest.raises(ConfigError, match="no such file"):
        harness.run(method="supervised", tuned=str(tmp_path / "tuned.yaml"), runs=tmp_path, **TINY)


@pytest.mark.parametrize("case", ALIKE)
def test_options_mean_what_they_mean_on_the_command_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options, arguments = ALIKE[case]
    words = options.get("0", [])
    harness.sweep(*words, **{name: value for name, value in options.items() if name != "0"}, harness={"plan": True})
    from_python = planned(capsys)
    assert main(["-m", *arguments, "harness.plan=true"]) == 0
    assert from_python == planned(capsys)


def planned(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The runs and teachers of a plan; their folders end with hashes of all that they are asked to be."""
    runs = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("student ", "teacher "))]
    assert runs
    return runs


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"method": "kdd"}, "did you mean kd?"),
    "option": ({"optoin": 1}, "Could not override 'optoin'"),
    "option of a group": ({"data": {"pading": 2}}, "'pading' not in 'Data'"),
    "kind": ({"seed": "a"}, "could not be converted to Integer"),
    "list": ({"seed": [0, 1]}, "harness.sweep runs each"),
    "list of names": ({"train": ["smoke", "short"]}, "harness.sweep runs each"),
    "group of methods": ({"method": "all"}, "in Python: harness.sweep"),
    "plan": ({"harness": {"plan": True}}, "in Python: harness.sweep"),
    "no value": ({"seed": {1, 2}}, "seed: set is no kind of value"),
    "combination": ({"method": {"name": "combined", "pair": [0, 4]}}, "needs at least 5 teachers"),
    "folder": ({"runs": "/proc/no,where"}, "cannot write to /proc/no,where"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_an_exception_of_one_line(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    options, said = REFUSED[case]
    before = sys.argv
    with pytest.raises(ConfigError) as error:
        harness.run(**options)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert sys.argv is before


def test_a_sweep_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no value"):
        harness.sweep(seed=[])


def test_importing_it_costs_nothing() -> None:
    code = (
        "import sys, harness; harness.run, harness.sweep; sys.exit(bool({'torch', 'hydra', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_run_is_its_record_and_its_network(tmp_path: Path) -> None:
    run = harness.run(method="combined", runs=tmp_path, **TINY)
    assert run.folder.parent == tmp_path
    assert run["status"] == "done" and set(run) == set(run.record)
    assert run.metrics["student"]["test"]["acc"] == run["metrics"]["student"]["test"]["acc"]
    assert [row["epoch"] for row in run.history] == [1]
    assert run.config["train"]["steps_per_epoch"] == 3
    assert run["provenance"]["command"].startswith("""harness.run 'method="combined"'""")
    check_predictions(run.folder, run.network(), load(run.config["data"], Console()))


def test_calls_follow_each_other_in_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a loop runs, behind a refusal, and where a run fails."""

    async def cell() -> Any:
        return harness.run(method="kd", runs=tmp_path, **TINY)

    first = asyncio.run(cell())
    with pytest.raises(ConfigError):
        harness.run(method="kd", seed="x", runs=tmp_path)
    assert harness.run(method="kd", runs=tmp_path, **TINY)["digest"] == first["digest"]
    assert asyncio.run(asyncio.to_thread(harness.run, method="kd", runs=tmp_path, **TINY)) == first
    monkeypatch.setattr(Learner, "begin", fail_for_seed_1(Learner.begin))
    with pytest.raises(RuntimeError, match="no luck"):
        harness.run(method="kd", seed=1, runs=tmp_path, **TINY)
    runs = harness.sweep(method="kd", seed=[0, 1, 2], runs=tmp_path, **TINY)
    assert [run.config["seed"] for run in runs] == [0, 2]
    assert runs[0] == first
    ((place, why),) = runs.missing.items()
    assert "-kd-s1-" in place.name and "failed: no luck" in why


def fail_for_seed_1(begin: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(self: Learner, *rest: Any, **more: Any) -> Any:
        if self.config["seed"] == 1:
            raise RuntimeError("no luck")
        return begin(self, *rest, **more)

    return wrapped


@pytest.mark.slow
@pytest.mark.parametrize("call", [harness.run, harness.sweep], ids=["run", "sweep"])
def test_the_same_call_goes_on_where_it_was_stopped(call: Callable[..., Any], tmp_path: Path) -> None:
    options = {
        "method": "kd", "teachers": {"size": 1, "train": {"epochs": 1}}, "train": {"epochs": 20}, "runs": tmp_path
    }  # fmt: skip

    def interrupt() -> None:
        wait_for(lambda: list(tmp_path.glob("*-kd-*/history.jsonl")), "the student's first epoch")
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
        call(**options)
    other.join()
    assert signal.getsignal(signal.SIGINT) is before
    found = call(**options)
    run = found[0] if isinstance(found, list) else found
    assert run["provenance"]["attempts"] == 2
    assert [row["epoch"] for row in run.history] == [*range(1, 21)]


# In a kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[dict[str, Any], list[Any]]]]:
    """A function that runs code in a kernel: its reply, and what it put out. `when` says of an output whether the kernel is
    interrupted at it.
    """
    manager = KernelManager()
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("kernel")))
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE_S)

    def execute(code: str, when: Callable[[str], bool] = lambda text: False) -> tuple[dict[str, Any], list[Any]]:
        seen: list[Any] = []

        def see(message: dict[str, Any]) -> None:
            kind, content = message["header"]["msg_type"], message["content"]
            text = content.get("text") or content.get("data", {}).get("text/plain", "")
            if kind not in ("status", "execute_input"):
                seen.append((kind, text, content))
            if when(text):
                manager.interrupt_kernel()

        return client.execute_interactive(code, output_hook=see, timeout=PATIENCE_S)["content"], seen

    yield execute
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_kernel_shows_progress_refuses_and_goes_on(kernel: Callable[..., Any]) -> None:
    reply, seen = kernel("import harness\nharness.run(method='kdd')")
    assert reply["ename"] == "ConfigError" and "did you mean kd?" in reply["evalue"]
    call = (
        "run = harness.run(method='kd', train={'epochs': 60}, "
        "teachers={'size': 1, 'train': {'epochs': 1}})\nrun['provenance']['attempts']"
    )
    reply, seen = kernel(call, when=lambda text: "-kd-s0" in text and "/60  loss" in text)
    assert reply["ename"] == "KeyboardInterrupt" and "the same call goes on" in reply["evalue"]
    reply, seen = kernel(call)
    assert reply["status"] == "ok"
    kinds = [kind for kind, *_ in seen]
    bars = [text for kind, text, _ in seen if kind == "update_display_data"]
    assert kinds[0] == "display_data" and any("/60  loss" in text for text in bars)
    assert bars[-1] == ""  # of a page that is kept, nothing
    table = next(content for kind, text, content in seen if kind == "display_data" and "test data" in text)
    assert "one teacher" in table["data"]["text/html"]
    assert seen[-1][1] == "2"
    reply, seen = kernel(
        "await __import__('asyncio').sleep(0)\nharness.sweep(method='kd', train='smoke', teachers={'size': 1})"
    )
    assert seen[-1][1].startswith("<1 runs done in runs, 0 missing>")


@pytest.mark.slow
def test_the_notebook_runs_from_nothing_to_a_figure(tmp_path: Path) -> None:
    kept = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]  # executed, and in order
    assert "image/png" in code[-1].outputs[-1].data
    for cell in code:
        cell.source = cell.source.replace('{"epochs": 12}', '{"name": "smoke", "steps_per_epoch": 3}')
    fresh = NotebookClient(kept, timeout=PATIENCE_S, resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = fresh.cells[-1].outputs[-1]
    assert drawn.output_type == "execute_result" and "image/png" in drawn.data
    assert len([*tmp_path.glob("runs/first_steps/*/record.json")]) == 6
