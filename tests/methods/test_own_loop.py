"""The loop of methods/README.md, as a person would paste it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

README = Path(__file__).parents[2] / "methods" / "README.md"
IMPORT = "from methods.combined import Combined"


def small_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))


def run_loop(home: str, name: str, networks: list[nn.Module], network: nn.Module) -> dict[str, Any]:
    """What the README's names are in the end, with another method; and of each step its loss, as `losses`."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert IMPORT in code and len(code.strip().splitlines()) <= 17
    digits = load_digits()
    images, labels = torch.tensor(digits.images[:1000, None] / 16).float(), torch.tensor(digits.target[:1000])
    names: dict[str, Any] = {"networks": networks, "network": network, "losses": []}

    def batches():
        for step in range(60):
            rows = torch.arange(step * 50, step * 50 + 50) % 1000
            yield images[rows], labels[rows]
            names["losses"].append(names["loss"].item())

    names["batches"] = batches()
    exec(code.replace(IMPORT, f"from {home} import {name}").replace("Combined()", f"{name}()"), names)
    with torch.no_grad():
        names["accuracy"] = float((names["deployed"](images).argmax(1) == labels).float().mean())
    return names


@pytest.fixture(scope="module")
def teachers() -> list[nn.Module]:
    return [
        run_loop("methods.baselines.supervised", "Supervised", [], small_network(seed))["deployed"] for seed in (1, 2)
    ]


@pytest.mark.parametrize(("home", "name"), [("methods.combined", "Combined"), ("methods.kd", "KD")])
def test_the_loop_trains_merges_and_predicts(home: str, name: str, teachers: list[nn.Module]) -> None:
    network = small_network(9)
    found = run_loop(home, name, teachers, network)
    losses = found["losses"]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])
    assert [type(layer) for layer in found["deployed"]] == [type(layer) for layer in network]
    assert not found["deployed"].training
    assert found["accuracy"] > 0.8
