"""A training on n devices is the training on one, to rounding; what cannot be is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from harness.training import batch_norm, ranks
from tests.double_precision import TRIALS, distance, together, trial, work

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("alone")
    together(work, 1, TRIALS, folder)
    return torch.load(folder / "found-1.pt")


@pytest.mark.slow
@pytest.mark.parametrize("count, names", [(2, list(TRIALS)), (3, ["changed"]), (4, ["kd", "accumulate"])])
def test_so_many_ranks_come_to_the_same(
    alone: dict[str, dict[str, torch.Tensor]], count: int, names: list[str], tmp_path: Path
) -> None:
    """Losses, weights, statistics, averages, the chosen checkpoint and the deployed network."""
    together(work, count, {name: TRIALS[name] for name in names}, tmp_path)
    found = torch.load(tmp_path / f"found-{count}.pt")
    apart = {name: distance(alone[name], found[name]) for name in names}
    assert max(apart.values()) < TOLERANCE, apart


@pytest.mark.slow
def test_parts_of_a_batch_are_as_good_as_devices(tmp_path: Path) -> None:
    """Where no norm looks at a whole part: batch norm is told by `train.accumulate` how many images it sees together."""
    found = []
    for count, parts in ((1, 8), (2, 4), (8, 1)):
        together(work, count, {"kd": trial("kd", normed=False, accumulate=parts, epochs=1, warmup_epochs=0)}, tmp_path)
        found.append(torch.load(tmp_path / f"found-{count}.pt")["kd"])
    assert max(distance(found[0], other) for other in found[1:]) < TOLERANCE


def test_every_row_is_one_ranks_and_a_part_stays_a_part() -> None:
    rows, parts, count = torch.arange(2 * 24).view(2, 24), 3, 4
    group = [ranks.Group.__new__(ranks.Group) for _ in range(count)]
    for rank, one in enumerate(group):
        one.rank, one.count = rank, count
    own = torch.stack([one.own(rows, parts) for one in group])
    for part, expected in zip(own.unflatten(2, (parts, -1)).unbind(2), rows.chunk(parts, 1), strict=True):
        assert torch.equal(part.transpose(0, 1).flatten(1), expected)
    slices = [one.slice(10) for one in group]
    assert torch.cat([torch.arange(10)[mine] for mine in slices]).tolist() == list(range(10))


def test_layers_that_draw_are_found_by_name() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Dropout(0.1), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert ranks.find_drawing(network, torch.rand(3, 1, 2, 2))[0] == "2"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network[2].p = 0.0
    assert not ranks.find_drawing(network, torch.rand(3, 1, 2, 2))


def test_a_batch_norm_of_another_kind_is_refused_by_name() -> None:
    class Other(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match=r"1 \(Other\) is no batch norm that several devices can share"):
        batch_norm.synchronise(nn.Sequential(nn.Conv2d(1, 2, 1), Other(2)))


def test_networks_are_ordinary_again() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    assert type(batch_norm.separate(batch_norm.synchronise(network))[1]) is nn.BatchNorm2d
    assert vars(network[1]).keys() == vars(nn.BatchNorm2d(2)).keys()
