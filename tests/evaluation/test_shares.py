"""What is asked of a student is the same, to the last bit, however many ranks share the asking."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from harness import streams
from harness.evaluation.evaluation import Evaluation
from harness.runtime.console import Console
from harness.store.findings import Findings
from harness.training import networks, ranks
from harness.training.data import Dataset, Split, load
from harness.training.inference import predict
from methods.combined import Combined
from tests.double_precision import CPU, together
from tests.running import configure


@dataclass
class Planted:
    """Teachers that were never trained."""

    data: Dataset
    folder: Path
    model: str = "preresnet_tiny"
    names: tuple[str, ...] = ("a", "b", "c")

    def networks(self) -> list[nn.Module]:
        return [build(name, self.data).eval() for name in self.names]

    def findings(self) -> Findings:
        return Findings(self.folder, "code", [], "data", "cpu")


def build(seed: int | str, data: Dataset) -> nn.Module:
    stream = streams.generator(seed, "init")
    return networks.build("preresnet_tiny", data.classes, data.mean, data.sd, stream, data.size)


def ask(folder: Path, rank: int, count: int) -> None:
    """All that can be asked, of a student that was never trained."""
    torch.set_num_threads(1)
    group = ranks.ALONE
    if count > 1:
        group = ranks.join(dist.FileStore(str(folder / f"store-{count}"), count), rank, count, CPU)
    config = configure(folder)
    data = load(config["data"])
    evaluation = Evaluation(config, {"diagnostics": True, "shift": True, "ood": []}, data, Console())
    evaluation.others = {"inverted": replace(data, test=Split(255 - data.test.images, data.test.labels))}
    teachers = Planted(data, folder / f"found-{count}")
    student = Combined().student(build(0, data), len(teachers.names), streams.generator(0, "factors")).eval()
    network = student.merge().eval()
    found: dict[str, Any] = {"logits": predict(network, data.test, ranks=group).tolist()}
    found["diagnostics"] = evaluation.diagnose(student, network, teachers, group)
    found |= evaluation.try_elsewhere(network, teachers, group)
    found["again"] = evaluation.try_elsewhere(network, teachers, group)
    if rank == 0:
        (folder / f"{count}.json").write_text(json.dumps(found))
    ranks.leave()


@pytest.mark.slow
def test_so_many_ranks_answer_the_same(tmp_path: Path) -> None:
    for count in (1, 3):
        together(ask, count, tmp_path)
    alone, shared = (json.loads((tmp_path / f"{count}.json").read_text()) for count in (1, 3))
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        assert shared[name] == value, name
    kept = [sorted(path.name for path in (tmp_path / f"found-{count}").iterdir()) for count in (1, 3)]
    assert kept[0] == kept[1] and len(kept[0]) == 2
