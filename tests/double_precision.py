"""Trainings in double precision, by one process or by several ranks of this machine: what they come to must be equal."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import methods
from harness import streams
from harness.config.options import DATA, Train
from harness.runtime.interruption import Interrupted
from harness.training import inference, networks, ranks, trainer
from harness.training.data import Dataset, augmentation, load
from harness.training.data.cutout import CutOut
from harness.training.data.randaugment import RandAugment
from methods.method import Teachers

RECIPE = Train(epochs=3, batch_size=48, lr=0.05, warmup_epochs=1, steps_per_epoch=3)
MEMBERS = 3
STOP = 4  # of 9 steps: within an epoch, whether all stop at once or at the next
CPU = torch.device("cpu")


def digits() -> Dataset:
    return load(asdict(DATA["digits"]))


def network(seed: int | str, data: Dataset, normed: bool = True) -> nn.Module:
    stream = streams.generator(seed, "init")
    found = networks.build("preresnet_tiny", data.classes, data.mean, data.sd, stream, data.size).double()
    return found if normed else norm_alone(found)


def norm_alone(network: nn.Module) -> nn.Module:
    """The network with norms that see one image at a time, in place."""
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features).double())
    return network


def train(
    group: ranks.Ranks,
    data: Dataset,
    method: str,
    changed: bool,
    stopped: bool,
    normed: bool,
    recipe: dict[str, Any],
) -> dict[str, Tensor]:
    """The losses and accuracies of every epoch, and all of the student, the average and the chosen checkpoint's network."""
    cls = methods.load(method)
    count = MEMBERS if cls.teachers is None else cls.teachers
    teachers = Teachers([network(f"teacher/0/{m}", data, normed) for m in range(count)])
    size = tuple(data.train.images.shape[-2:])
    changes = [RandAugment(2, 9, size, CPU), CutOut(4, size, torch.tensor(data.mean))] if changed else []
    found: list[list[float]] = []

    def report(epoch: dict[str, Any]) -> None:
        found.append([epoch["loss"], epoch.get("validation", {}).get("nll", 0.0)])

    options = asdict(RECIPE) | recipe
    own = trainer.Trainer(
        cls(), data, teachers, options, padding=1, flip=True, seed=0, changes=changes, report=report, ranks=group
    )
    training, steps = own.start(network(0, data, normed)), itertools.count()
    own.stop = lambda: stopped and next(steps) == STOP
    try:
        own.run(training)
    except Interrupted:
        state = group.copy(training.state())
        training = own.start(network(0, data, normed))
        training.restore(state)
        own.run(training)
    parts = {"student": training.student, "judged": training.judged, "deployed": own.deploy(training.judged)}
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
    # In several parts, as larger sets are.
    trainer.reestimate_batch_norm = functools.partial(inference.reestimate_batch_norm, batch_size=200)
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
    # The last is what every optimiser imports, in a second.
    context.set_forkserver_preload(["harness.training.trainer", "torch.distributed", "torch._dynamo"])
    processes = [context.Process(target=target, args=(*arguments, rank, count)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"exit statuses {[process.exitcode for process in processes]}")


def trial(
    method: str, changed: bool = False, stopped: bool = False, normed: bool = True, **recipe: Any
) -> dict[str, Any]:
    """A training's method, whether its images are changed beyond crops, whether it is stopped within an epoch and goes on,
    whether its networks have batch norms, and its recipe.
    """
    return {"method": method, "changed": changed, "stopped": stopped, "normed": normed, "recipe": recipe}


BASELINES = ("supervised", "soup", "hydra", "batch_ensemble")  # whose students are none of the variants'
TRIALS = {name: trial(name) for name in (*BASELINES, *methods.VARIANTS)} | {
    "ema": trial("combined", average="ema"),
    "swa": trial("kd", average="swa", swa_start=0.3),
    "accumulate": trial("combined", accumulate=2),
    "adamw": trial("weight_averaging", optimiser="adamw", lr=0.01, label_smoothing=0.1),
    "changed": trial("combined", changed=True, mixup=0.5),
    "stopped": trial("supervised", stopped=True),
}


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of what two trainings came to."""
    assert one.keys() == other.keys()
    return max(float((values.double() - other[name].double()).abs().max()) for name, values in one.items())


def main(counts: list[int]) -> None:
    """`python -m tests.double_precision 1 2 3 4`: how far trainings of so many ranks end from those of the first."""
    with TemporaryDirectory() as folder:
        for count in counts:
            together(work, count, TRIALS, Path(folder))
        found = [torch.load(Path(folder) / f"found-{count}.pt") for count in counts]
    print(f"{'training':<20}" + "".join(f"{count} ranks".rjust(12) for count in counts[1:]))
    for name in TRIALS:
        print(f"{name:<20}" + "".join(f"{distance(found[0][name], other[name]):12.1e}" for other in found[1:]))


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]])
