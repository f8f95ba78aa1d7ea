"""What a sweep says at its end: rows are what they are called, whatever they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.sweep.plan import make_plan
from harness.sweep.report import collect, show
from tests.planted import TEST, plant
from tests.running import configure


def shown(configs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> str:
    plan = make_plan(configs)
    results = collect(plan, {}, Console())
    assert not results.missing
    show(results, plan, Path("runs"), 0.0, Console())
    return capsys.readouterr().out


def test_a_name_is_shown_and_not_obeyed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("[/x]", "[bold red]y", "z\n\x1b[2J w", "\\")
    for name in names:
        (tmp_path / name).mkdir(parents=True)
    configs = [
        configure(tmp_path / "runs", "supervised", "folder", data__root=str(tmp_path / name), data__image_size=8)
        for name in names
    ]
    for config in configs:
        plant(run_directory(config), config)
    said = shown(configs, capsys)
    for name in (*names[:2], "z\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[2J w"):
        assert str(tmp_path / name) in said
    assert "\x1b" not in said


def test_teachers_of_one_name_and_other_weights_are_two_sets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [configure(tmp_path, seed=seed) for seed in range(4)]
    for seed, (config, weights) in enumerate(zip(configs, ("a", "a", "b", None), strict=True)):
        metrics = {who: {"test": {**TEST, "nll": 7.0 if weights == "b" else 3.0}} for who in ("teacher", "ensemble")}
        origin = {
            "teachers": ["t"],
            "data": None,
            "device": "cpu",
            **({"teacher_weights": {"t": weights}} if weights else {}),
        }
        metrics["student"] = {"test": TEST}
        plant(run_directory(config), config, metrics=metrics, provenance=origin)
        said = shown(configs[: seed + 1], capsys)
        assert ("it learned from another t than the runs above" in said) == (seed >= 2)
        (row,) = (line for line in said.splitlines() if "one teacher" in line)
        assert ("2 sets" in row, "5.0000" in row) == (seed >= 2, seed >= 2), row


def test_images_of_two_sizes_share_no_row_of_teachers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor are their students rivals: every size has its best."""
    root = str(tmp_path)
    sizes = {8: 0.5, 16: 0.7}
    configs = [
        configure(tmp_path / "runs", method, "folder", data__root=root, data__image_size=size)
        for size in sizes
        for method in ("kd", "ensemble_kd")
    ]
    for config in configs:
        test = {**TEST, "acc": sizes[config["data"]["image_size"]]}
        metrics = {who: {"test": test} for who in ("student", "teacher", "ensemble")}
        origin = {"teachers": [f"t{config['data']['image_size']}"], "data": None, "device": "cpu"}
        plant(run_directory(config), config, metrics=metrics, provenance=origin)
    said = shown(configs, capsys)
    assert "on each data set and network" in said and "one teacher" not in said and "60.00" not in said


def test_passes_are_those_of_an_arm_whichever_run_came_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier records do not know them."""
    configs = [configure(tmp_path, seed=seed) for seed in (0, 1)]
    for config, passes in zip(configs, ({}, {"inference_passes": 4}), strict=True):
        cost = {"wall_s": 1.0, "device_s": 1.0, "images_per_s": 9.0, "parameters": 3}
        plant(run_directory(config), config, cost=cost | passes)
    assert all("kd (4 passes)" in shown(order, capsys) for order in (configs, configs[::-1]))
