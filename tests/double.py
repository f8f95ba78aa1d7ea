"""Trainings in double precision, by one process or by several ranks of this machine: what they come to must be equal."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import methods
from harness import streams
from harness.config.options import DATA, Train
from harness.training import inference, networks, ranks
from harness.training.data import Dataset, augmentation, load
from harness.training.data.cutout import CutOut
from harness.training.data.randaugment import RandAugment
from harness.training.trainer import Trainer
from methods.method import Teachers

RECIPE = Train(epochs=3, batch_size=48, lr=0.05, warmup_epochs=1, steps_per_epoch=3, precision="float32")
MEMBERS = 3
CPU = torch.device("cpu")


def digits() -> Dataset:
    return load(asdict(DATA["digits"]))


def network(seed: int | str, data: Dataset, model: str = "preresnet_tiny") -> torch.nn.Module:
    return networks.build(model, data.classes, data.mean, data.sd, streams.generator(seed, "init"), data.size).double()


def train(
    group: ranks.Ranks, data: Dataset, method: str, model: str, changed: bool, recipe: dict[str, Any]
) -> dict[str, Tensor]:
    """The losses and accuracies of every epoch, and all of the student, the average and the chosen checkpoint's network."""
    cls = methods.load(method)
    count = MEMBERS if cls.teachers is None else cls.teachers
    teachers = Teachers([network(f"teacher/0/{m}", data) for m in range(count)])
    size = tuple(data.train.images.shape[-2:])
    changes = [RandAugment(2, 9, size, CPU), CutOut(4, size, torch.tensor(data.mean))] if changed else []
    found: list[list[float]] = []

    def report(epoch: dict[str, Any]) -> None:
        found.append([epoch["loss"], epoch.get("validation", {}).get("nll", 0.0)])

    options = asdict(RECIPE) | recipe
    trainer = Trainer(
        cls(), data, teachers, options, padding=1, flip=True, seed=0, changes=changes, report=report, ranks=group
    )
    training = trainer.run(trainer.start(network(0, data, model)))
    parts = {"student": training.student, "judged": training.judged, "deployed": trainer.deploy(training.judged)}
    values = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    chosen = {f"best.{key}": value for key, value in training.best.student.items()}
    return {"epochs": torch.tensor(found), **values, **chosen}


def exactly(images: Tensor) -> Tensor:
    return images.double() / 255


def work(trials: dict[str, dict[str, Any]], folder: Path, rank: int, count: int) -> None:
    """Do all trials as one of so many ranks; rank 0 writes what they came to."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    augmentation.to_unit = inference.to_unit = exactly
    group = ranks.ALONE
    if count > 1:
        store = dist.FileStore(str(folder / f"store-{count}"), count)
        group = ranks.join(store, rank, count, CPU)
    data = digits()
    found = {name: train(group, data, **options) for name, options in trials.items()}
    if rank == 0:
        torch.save(found, folder / f"found-{count}.pt")
    ranks.leave()


def together(target: Callable[..., None], count: int, *arguments: Any) -> None:
    """Call target(*arguments, rank, count) in so many processes. Raises RuntimeError where one fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.training.trainer", "torch.distributed"])
    processes = [context.Process(target=target, args=(*arguments, rank, count)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit statuses {[process.exitcode for process in processes]}")


TRIALS = {
    name: {"method": name, "model": "preresnet_tiny", "changed": False, "recipe": {}}
    for name in ("supervised", *methods.VARIANTS)
}
MORE = {
    "ema": {"average": "ema"},
    "swa": {"average": "swa", "swa_start": 0.3},
    "accumulate": {"accumulate": 2},
    "adamw, smooth": {"optimiser": "adamw", "lr": 0.01, "label_smoothing": 0.1},
    "mixup": {"mixup": 0.5},
}
TRIALS |= {
    name: {"method": "combined", "model": "preresnet_tiny", "changed": name == "mixup", "recipe": recipe}
    for name, recipe in MORE.items()
}

if __name__ == "__main__":
    from tempfile import mkdtemp

    place = Path(mkdtemp())
    for count in map(int, sys.argv[1:]):
        together(work, count, TRIALS, place)
    one = torch.load(place / "found-1.pt")
    for count in map(int, sys.argv[2:]):
        other = torch.load(place / f"found-{count}.pt")
        for name in TRIALS:
            apart = {k: float((v.double() - other[name][k].double()).abs().max()) for k, v in one[name].items()}
            worst = max(apart, key=apart.get)
            print(
                f"{name:20} {count} ranks: {apart[worst]:.1e} ({worst}); losses {apart['epochs']:.1e}",
                one[name]["epochs"][-1].tolist(),
            )
