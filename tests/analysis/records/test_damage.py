"""Every reader of analysis against every damage: one bad file costs itself, by name, and what is believed can be used.

With -s a table. HARNESS_FUZZ=N: N bits and N places to cut of every file, and every wrong value, not some.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.records.baseline import read_baseline
from analysis.records.declared import read_study
from analysis.records.errors import AnalysisError, AnalysisWarning
from analysis.records.exports import SEAL
from analysis.records.loading import load
from analysis.records.predictions import read
from analysis.records.rows import check_row, read_row
from analysis.records.study import Study
from analysis.report.figures.runs import curves, paths
from analysis.report.summary import summarise
from analysis.report.tables import ablation
from analysis.verdicts import gate
from harness.store.files import Damaged
from harness.store.identity import run_hash
from harness.store.predictions import PREDICTIONS
from harness.store.record import RECORD, digest_of
from tests import damage
from tests.analysis.synthetic import make_run
from tests.damage import Damage

TABLE: dict[str, Counter[str]] = {}


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    for name, found in TABLE.items():
        print(
            f"\n{name:<24} injected {found.total():>6}: {', '.join(f'{n} {how}' for how, n in found.items())}", end=""
        )


def some(damages: Iterable[Damage], each: int) -> Iterator[Damage]:
    """Every one in the long form, else one of `each`."""
    return (one for i, one in enumerate(damages) if damage.MANY or i % each == 0)


def whole(content: bytes) -> Iterator[Damage]:
    """What can happen to any file."""
    return chain(damage.texts(), damage.places(), damage.cuts(content), damage.flips(content))


def try_all(name: str, path: Path, damages: Iterable[Damage], use: Callable[[], str]) -> None:
    """Inflict each on the file; `use` says how it ended, and raises nothing but AnalysisError, which names the file."""
    found = TABLE.setdefault(name, Counter())
    for one in damages:
        one.inflict(path)
        try:
            with warnings.catch_warnings(), damage.in_time():
                warnings.simplefilter("ignore", AnalysisWarning)
                found[use()] += 1
        except AnalysisError as error:
            assert "\n" not in str(error), one.name
            assert path.name in str(error) or path.parent.name in str(error), (one.name, str(error))
            found["one line"] += 1
        except BaseException as error:
            raise AssertionError(f"{name}, {one.name}: {type(error).__name__}: {error}") from error
    damage.remove(path)


def sealed(record: Any) -> Any:
    """A record whose hash and digest fit, whatever else is wrong with it."""
    record = record | {"hash": run_hash(record["config"])}
    return record | {"digest": digest_of(record)}


@pytest.fixture
def sweep(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of good runs, and the record of one more in a folder that says nothing of its hash."""
    for seed in (0, 1):
        for method in ("kd", "combined"):
            make_run(tmp_path / "runs", method, seed, diagnostics=True)
    victim = make_run(tmp_path / "runs", "combined", 2, diagnostics=True)
    shutil.move(victim, tmp_path / "runs" / "victim")
    return tmp_path / "runs", tmp_path / "runs" / "victim" / RECORD


@pytest.mark.parametrize("kind", ["bytes", "sealed", "version 1"])
def test_records(sweep: tuple[Path, Path], kind: str) -> None:
    folder, path = sweep
    content, good = path.read_bytes(), {row["run"]: row for row in load(folder).to_dict("records")}
    record = json.loads(content)
    victim = record["hash"]
    record["shift"] = {"source": "x", "student": {"acc": 0.5, "nll": 1.0}}
    record["ood"] = {"noise": {"student": {"auroc_entropy": 0.9}}}
    old = {key: value for key, value in record.items() if key not in ("digest", "files", "notes")} | {"version": 1}

    def use() -> str:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            frame = load(folder, study=Study(), allow=["all"])
        rows = {row["run"]: row for row in frame.to_dict("records")}
        kept = good.keys() - {victim}
        if kept - rows.keys():  # a record that says it is another's run: refused by name, or known as a repeated cell
            assert any("kept the latest" in str(one.message) for one in said)
        assert all(rows[run]["nll"] == good[run]["nll"] for run in kept & rows.keys())
        if not rows.keys() - kept:
            assert any("victim" in str(one.message) for one in said) or path.parent.name in str(frame.attrs)
            return "left out, by name"
        summarise(frame, Study())
        for draw in (lambda: curves(frame, Study()), lambda: paths(frame)):
            draw()
        return "read and used"

    damages = {
        "bytes": lambda: whole(content),
        "sealed": lambda: some(damage.values(record, sealed), 61),
        "version 1": lambda: some(damage.values(old), 61),
    }[kind]()
    try_all(f"records, {kind}", path, damages, use)


def test_exports(sweep: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = sweep
    path = tmp_path / "runs.csv"
    assert main(["export", str(folder), "-o", str(path)]) == 0
    content = path.read_bytes()
    rows = load(path)[["run", "nll", "config"]]

    def use() -> str:
        assert load(path)[["run", "nll", "config"]].equals(rows)
        return "read, and the same"  # the seal's own name has changed

    try_all("exports, sealed", path, whole(content), use)


def test_exports_of_older_versions(sweep: tuple[Path, Path], tmp_path: Path) -> None:
    """Without a seal: every cell wrong in turn."""
    folder, _ = sweep
    path = tmp_path / "runs.csv"
    assert main(["export", str(folder), "-o", str(path)]) == 0
    frame = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=[SEAL, "notes"])

    def wrong() -> Iterator[Damage]:
        for column in frame.columns:
            for value in (
                "",
                "x",
                "-1",
                "nan",
                "inf",
                "1e999",
                "9" * 400,
                "{",
                "[[1]]",
                "\x1b[31m",
                "[1",
                '{"a": null}',
            ):
                changed = frame.copy()
                changed.loc[1, column] = value
                yield damage.contents(f"{column} = {value[:9]!r}", changed.to_csv(index=False).encode())

    def use() -> str:
        summarise(load(path, study=Study(), allow=["all"]), Study())
        return "read and used"

    try_all("exports, unsealed", path, some(wrong(), 13), use)


def test_baselines(sweep: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = sweep
    path = tmp_path / "b.json"
    assert main(["freeze", str(folder), "-o", str(path)]) == 0
    content, frame = path.read_bytes(), load(folder)
    unsealed = {key: value for key, value in json.loads(content).items() if key != "digest"}

    def use() -> str:
        baseline = read_baseline(path)
        assert "digest" not in baseline or baseline["runs"] == unsealed["runs"]
        try:
            gate.outcome(gate.regress(baseline, frame))
        except AnalysisError:  # another recipe, an arm that is not there
            return "read, and not comparable"
        return "read and used"

    try_all("baselines, bytes", path, whole(content), use)
    try_all("baselines, values", path, some(damage.values(unsealed), 31), use)


def test_studies(tmp_path: Path) -> None:
    block = {
        "question": "q", "primary": "nll", "baseline": "kd", "alpha": 0.05, "test": "guarded", "margins": {"nll": 0.1},
        "arms": {"clean": {"method": {"name": "combined"}}}, "factors": ["teachers.size"],
        "families": {
            "a": {"against": "kd", "arms": ["combined"]}, "l": {"ladder": ["kd", "combined"]},
            "f": {"factorial": {"neither": "a", "first": "b", "second": "c", "both": "d", "names": ["x", "y"]}},
            "p": {"pairs": [["kd", "combined"]]},
        },
    }  # fmt: skip
    for seed in range(2):
        for method in ("kd", "combined"):
            make_run(tmp_path / "runs", method, seed, files=False)
    path = tmp_path / "s.yaml"
    content = json.dumps({"study": block}).encode()  # which is YAML

    def use() -> str:
        study = read_study(path)
        try:
            summarise(load(tmp_path / "runs", study=study), study)
        except AnalysisError as error:
            assert "\n" not in str(error)
            return "read, and not for these runs"
        return "read and used"

    path.write_bytes(content)
    assert use() == "read and used"
    try_all("studies, bytes", path, whole(content), use)
    try_all("studies, values", path, some(damage.values({"study": block}), 5), use)


def test_predictions_and_histories(tmp_path: Path) -> None:
    directory = make_run(tmp_path, "kd", 0)
    path, content = directory / PREDICTIONS, (directory / PREDICTIONS).read_bytes()

    good = read(directory)

    def use() -> str:
        found = read(directory)
        assert (found.logits == good.logits).all() and (found.labels == good.labels).all()
        return "the same"  # NULs in the place of NULs

    try_all("predictions", path, whole(content), use)
    assert TABLE["predictions"]["one line"] >= TABLE["predictions"].total() - 1
    good = make_run(tmp_path, "kd", 1)
    assert good.exists()
    path, content = directory / "history.jsonl", (directory / "history.jsonl").read_bytes()

    def draw() -> str:
        curves(load(tmp_path), Study())
        return "drawn without what is wrong"

    first = json.loads(content.splitlines()[0])
    lines = (
        Damage(one.name, lambda path, one=one: (one.inflict(path), path.write_bytes(content + path.read_bytes())))
        for one in damage.values(first)
    )
    try_all("histories", path, chain(whole(content), some(lines, 5)), draw)


def test_what_a_run_was_tuned_on_can_be_told(tmp_path: Path) -> None:
    row, _ = read_row(make_run(tmp_path, "kd", 0, files=False))
    about = {"digest": "x", "trials": 3, "over": ["alpha"], "on": "digits x wrn10_1", "seeds": [7]}
    for name, tuned in damage.variants(about):
        config = {**row["config"], "tuned": tuned}
        try:
            found = check_row({**row, "config": config}, "a record")
        except Damaged:
            continue
        told = ablation._tuned(pd.DataFrame([found | {"arm": "kd"}]))
        assert all(line.isprintable() for line in told), name
