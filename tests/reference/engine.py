"""Networks, losses, gradients, perturbations and optimiser steps, by the classes that training uses."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.config.options import TRAIN
from harness.evaluation import metrics
from harness.training.data import Dataset, Split
from harness.training.data.batches import Batch
from harness.training.state import Training
from harness.training.trainer import Trainer
from methods.baselines.supervised import Supervised
from methods.combined import Combined
from methods.diversify import disagreement
from methods.ensemble_kd import EnsembleKD
from methods.latent_be import LatentBE
from methods.method import Method, Teachers
from methods.weight_averaging import WeightAveraging
from tests.reference import layout
from tests.reference.differences import DIFFERENCES, Kinks, use_biased_variance
from tests.reference.file import Quantity, ReferenceFile, precision

TDIV = functools.partial(Combined, student_term=False)
METHODS = {"plain": Supervised, "kd": EnsembleKD, "latentbe": WeightAveraging, "tdivsdiv": Combined, "tdiv": TDIV}
STEPS_PER_EPOCH = 351  # 45,000 images in batches of 128
RATE_TOLERANCE = 1e-6  # of a float32 learning rate, relative to the schedule's peak
MOST_FLIPS = 64
TRAJECTORY_TOLERANCE = 1e-7  # in float64, where rounding grows from step to step
MERGED = {  # name of the forward pass -> how the LatentBE student is merged for it
    "be_merged_stepval": "factors",
    "be_merged_notebook": "factors",
    "be_merged_outer": "outer",
}


def check_engine(file: ReferenceFile) -> list[str]:
    """Judge every quantity of an engine file; returns what is worth saying above the results."""
    engine = Engine(file)
    engine.attempt("fwd", engine.check_forward)
    engine.attempt("merged", engine.check_merged)
    for case in file.children("step"):
        engine.attempt(f"step/{case}", functools.partial(engine.check_case, case))
    engine.attempt("traj", engine.check_trajectory)
    return [str(engine), *(f"handled exactly: {difference}" for difference in DIFFERENCES)]


@dataclass
class ReferenceTrainer(Trainer):
    """Training's own trainer, with the file's float32 learning rate; its schedule is compared beside it."""

    lr: float = 0.0

    def rate(self, step: int) -> float:
        return self.lr

    def schedule(self, step: int) -> float:
        return super().rate(step)


class Engine:
    """The networks and the batch of a file."""

    def __init__(self, file: ReferenceFile):
        self.file = file
        self.dtype = torch.float64 if precision(file.arrays) == np.float64 else torch.float32
        self.pixels = file.take("in/images_uint8")
        self.images = layout.images_from_file(self.pixels, self.dtype)
        self.labels = torch.from_numpy(file.take("in/labels").astype(np.int64))
        self.weight_decay = float(file.take("in/weight_decay"))
        self.members = int(file.take("in/M"))
        self.kinks = Kinks()
        self.shape = layout.read_shape(file, "student")
        self.teachers = Teachers([self.plain(f"teacher{m}") for m in range(self.members)])

    def __str__(self) -> str:
        batch = " x ".join(map(str, self.pixels.shape))
        return f"{self.shape}, {self.members} members, batch {batch}, {self.dtype}".replace("torch.", "")

    def plain(self, name: str) -> nn.Sequential:
        network = layout.build(self.file, name, self.dtype, self.kinks)
        layout.load(network, self.file, name)
        return network

    def latent_be(self) -> LatentBE:
        network = layout.build(self.file, "be", self.dtype, self.kinks)
        student = WeightAveraging().student(network, self.members, torch.Generator())
        layout.load(student, self.file, "be")
        return student

    # Forward passes and merging ----------------------------------------------------------------------------

    def check_forward(self) -> None:
        for name in ("student", "be", *(f"teacher{m}" for m in range(self.members))):
            for mode in self.file.children(f"fwd/{name}"):
                network = self.latent_be() if name == "be" else self.plain(name)
                self.check_pass(f"fwd/{name}/{mode}", network.train(mode == "train"))

    def check_pass(self, name: str, network: nn.Module) -> None:
        """Logits and everything on the way to them, of one pass in the network's current mode."""
        use_biased_variance(network)
        seen = observe(network)
        with torch.no_grad():
            logits = network(self.images)
        self.file.compare(f"{name}/logits", logits)
        self.file.compare(f"{name}/pooled_features", seen.pop("pooled"))
        for block, features in seen.items():
            self.file.compare(f"{name}/features.block.{block}/example0", layout.images_to_file(features[:1])[0])
        self.file.compare(f"{name}/new_batch_stats", layout.to_file(layout.statistics(network)))

    def check_merged(self) -> None:
        student = self.latent_be().eval()
        for prefix in ("fwd", "nonofficial"):
            for name in self.file.children(prefix):
                if name in MERGED:
                    with torch.no_grad():
                        logits = self.merged(student, name).eval()(self.images)
                    self.file.compare(f"{prefix}/{name}/eval/logits", logits)
        self.file.compare("merged_stepval", layout.values_to_file(self.merged(student, "be_merged_stepval")))
        self.file.compare("merged_notebook", layout.values_to_file(self.merged(student, "be_merged_notebook")))
        if "stepval/n" in self.file.arrays:
            count = int(self.file.take("stepval/n"))
            with torch.no_grad():
                logits = student.merge().eval()(self.images[:count])
            self.file.compare("stepval/acc1", metrics.accuracy(logits, self.labels[:count]))
            self.file.compare("stepval/loss_ce", nn.functional.cross_entropy(logits, self.labels[:count]))

    def merged(self, student: LatentBE, name: str) -> nn.Module:
        network = WeightAveraging(merge=MERGED[name]).deploy(student)
        if name == "be_merged_notebook":  # the official notebook forgets to scale the bias
            network.network.classifier.bias = student.network.network.classifier.bias
        return network

    def attempt(self, name: str, run: Callable[[], None]) -> None:
        """Run checks; where some are out, run again with relu inputs within rounding of 0 on the other side.

        There the two implementations' roundings decide which derivative each takes. The first choice of sides
        with which everything fits is kept, else the original one. Checks that cannot be run are out.
        """
        results, first = self.file.results, len(self.file.results)
        original: list[Quantity] = []
        for flipped in self.sides():
            self.kinks.restart(flipped)
            del results[first:]
            try:
                run()
            except (KeyError, ValueError, RuntimeError) as error:
                self.file.judge(name, float("inf"), note=f"{type(error).__name__}: {error}")
            if all(result.ok for result in results[first:]):
                break
            original = original or results[first:]
        else:
            results[first:] = original
        for before, after in zip(original, results[first:], strict=False):
            if after.ok and not before.ok:
                after.note += f"; relu inputs within rounding of 0 on their other side: {len(flipped)}"

    def sides(self) -> Iterator[tuple[int, ...]]:
        """Which doubtful relu inputs to flip: none, then up to three of those last met, nearest first."""
        yield ()
        doubtful = sorted(range(len(self.kinks.distances)), key=self.kinks.distances.__getitem__)
        choices = itertools.chain.from_iterable(itertools.combinations(doubtful, k) for k in range(1, 4))
        yield from itertools.islice(choices, MOST_FLIPS)

    # Optimiser steps ---------------------------------------------------------------------------------------

    def start(self, method: Method) -> tuple[ReferenceTrainer, Training]:
        """A trainer on the paper's recipe, and a training at the file's weights that has no momentum yet."""
        name = "be" if isinstance(method, WeightAveraging) else "student"
        batch = len(self.labels)
        recipe = asdict(TRAIN["paper"]) | {"batch_size": batch, "weight_decay": self.weight_decay}
        pixels = torch.from_numpy(self.pixels.transpose(0, 3, 1, 2).copy())
        split = Split(pixels.repeat(STEPS_PER_EPOCH, 1, 1, 1), self.labels.repeat(STEPS_PER_EPOCH))
        data = Dataset(self.shape.classes, (), (), split, split, split)
        trainer = ReferenceTrainer(method, data, self.teachers, recipe, padding=0, flip=False, seed=0)
        training = trainer.start(layout.build(self.file, name, self.dtype, self.kinks))
        layout.load(training.student, self.file, name)
        use_biased_variance(layout.unwrap(training.student))
        training.student.train()
        return trainer, training

    def set_momentum(self, training: Training) -> None:
        """The file's momentum; where a group's rate is scaled, the momentum is smaller by that factor."""
        name = "momentum_be" if isinstance(training.student, LatentBE) else "momentum_student"
        if not self.file.paths(f"in/{name}"):
            return  # without any, it starts from none
        scale = rate_scales(training)
        for path, parameter in layout.parameters(training.student).items():
            momentum = layout.from_file(path, self.file.take(f"in/{name}/{path}")).to(self.dtype)
            training.optimiser.state[parameter]["momentum_buffer"] = momentum / scale[path]

    def check_case(self, case: str) -> None:
        """One optimiser step; the case's name tells the method and its options, such as kd_a0.3_T2."""
        name = f"step/{case}"
        kind, *options = case.split("_")
        if kind not in METHODS:
            raise ValueError(f"{self.file.path.name}: {name} is none of {', '.join(METHODS)}")
        chosen = {}
        for option in options:
            if found := re.fullmatch(r"a([\d.]+)", option):
                chosen["alpha"] = float(found[1])
            elif found := re.fullmatch(r"T([\d.]+)", option):
                chosen["temperature"] = float(found[1])
            elif found := re.fullmatch(r"pair(\d)(\d)", option):
                chosen["pair"] = [int(found[1]), int(found[2])]
            else:
                raise ValueError(f"{self.file.path.name}: {name} has an unknown option {option}")
        if f"{name}/perturb/pair" in self.file.arrays:
            chosen["pair"] = self.file.arrays[f"{name}/perturb/pair"].tolist()
        trainer, training = self.start(METHODS[kind](**chosen))
        self.set_momentum(training)
        self.check_step(name, trainer, training, int(self.file.take("in/global_step")), self.file.tolerance)

    def check_trajectory(self) -> None:
        """Steps in a row on the same batch, from no momentum, each at its own learning rate and pair."""
        steps = sorted(int(name) for name in self.file.children("traj") if name.isdigit())
        if not steps:
            return
        trainer, training = self.start(Combined())
        schedule = np.array([trainer.schedule(step) for step in range(trainer.epochs * STEPS_PER_EPOCH)])
        tolerance = max(self.file.tolerance, TRAJECTORY_TOLERANCE)
        for k in steps:
            name = f"traj/{k}"
            pair = self.file.take(f"{name}/pair").tolist()
            trainer.method = replace(trainer.method, pair=pair)
            # The file has each step's learning rate but not its number: that of the schedule's nearest rate.
            step = int(np.abs(schedule - self.file.take(f"{name}/metrics/lr")).argmin())
            self.check_step(name, trainer, training, step, tolerance)
        self.file.compare("traj/final_params", layout.values_to_file(training.student), tolerance)
        self.file.compare("traj/final_batch_stats", layout.to_file(layout.statistics(training.student)), tolerance)
        self.file.compare("traj/final_momentum", momenta(training), tolerance)

    def check_step(self, name: str, trainer: ReferenceTrainer, training: Training, step: int, tolerance: float) -> None:
        """Take one step and judge everything that the file has of it."""
        compare = functools.partial(self.file.compare, tolerance=tolerance)
        student = training.student
        trainer.lr = rate = float(self.file.take(f"{name}/metrics/lr"))
        training.step = step
        peak = trainer.recipe["lr"]
        error = abs(trainer.schedule(step) - rate) / peak
        self.file.judge(f"{name}/metrics/lr", error, RATE_TOLERANCE, f"step {step}, relative to the peak of {peak}")

        if isinstance(trainer.method, Combined):
            self.check_objective(name, trainer, student, compare)
        decay = sum(0.5 * group["weight_decay"] * p.detach().square().sum() for group, p in grouped(training))
        seen: dict[str, Tensor] = {}
        hooks = [
            student.register_forward_hook(lambda _, inputs, logits: seen.update(images=inputs[0], logits=logits)),
            training.optimiser.register_step_pre_hook(lambda *_: seen.update(gradients=gradients(training))),
        ]
        parts = trainer.take_step(training, Batch(self.images, self.labels))
        for hook in hooks:
            hook.remove()

        logits = seen["logits"].detach().flatten(0, -2)
        compare(
            f"{name}/metrics/acc1",
            metrics.accuracy(logits, self.labels.repeat(len(logits) // len(self.labels))),
        )
        compare(f"{name}/metrics/loss", parts["loss"].detach() + decay)
        compare(f"{name}/metrics/loss_wd", decay / self.weight_decay)
        for part in ("loss_ce", "loss_kd"):
            if part in parts:
                compare(f"{name}/metrics/{part}", parts[part])
        compare(f"{name}/perturb/images", layout.images_to_file(seen["images"]))
        compare(f"{name}/grads", seen["gradients"])
        compare(f"{name}/gradnorm", norms(seen["gradients"]))
        compare(f"{name}/new_params", layout.values_to_file(student))
        compare(f"{name}/newparamnorm", norms(layout.values_to_file(student)))
        compare(f"{name}/new_momentum", momenta(training))
        compare(f"{name}/new_batch_stats", layout.to_file(layout.statistics(student)))

    def check_objective(
        self, name: str, trainer: ReferenceTrainer, student: LatentBE, compare: Callable[..., None]
    ) -> None:
        """What the perturbation ascends, and its gradient, at the weights before the step."""
        i, j = trainer.method.pair
        members = student.member if trainer.method.student_term else None
        objective = disagreement(i, j, self.teachers.member, members)
        images = self.images.clone().requires_grad_()
        value = objective(images)
        (gradient,) = torch.autograd.grad(value, images)
        compare(f"{name}/perturb/pair", [i, j])
        compare(f"{name}/perturb/pair_teacher_ij_student_ij", [i, j, i, j])
        compare(f"{name}/perturb/perturb_loss", value.detach())
        compare(f"{name}/perturb/raw_grad", layout.images_to_file(gradient))


def grouped(training: Training) -> Iterator[tuple[dict[str, Any], nn.Parameter]]:
    """Every parameter with its optimiser group."""
    return ((group, p) for group in training.optimiser.param_groups for p in group["params"])


def rate_scales(training: Training) -> dict[str, float]:
    """The factor on each parameter's learning rate, by path; the file multiplies gradients by it instead."""
    scales = {id(p): group["lr_scale"] for group, p in grouped(training)}
    return {path: scales[id(p)] for path, p in layout.parameters(training.student).items()}


def gradients(training: Training) -> dict[str, np.ndarray]:
    """Gradients of loss and weight decay together, times the factor on the learning rate."""
    full = {id(p): group["lr_scale"] * (p.grad + group["weight_decay"] * p.detach()) for group, p in grouped(training)}
    return layout.to_file({path: full[id(p)] for path, p in layout.parameters(training.student).items()})


def momenta(training: Training) -> dict[str, np.ndarray]:
    """The optimiser's momentum, times the factor on the learning rate."""
    scales = rate_scales(training)
    state = training.optimiser.state
    return layout.to_file(
        {path: state[p]["momentum_buffer"] * scales[path] for path, p in layout.parameters(training.student).items()}
    )


def norms(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """L2 norms in float64."""
    return {path: float(np.linalg.norm(array.astype(np.float64))) for path, array in arrays.items()}


def observe(student: nn.Module) -> dict[str, Tensor]:
    """A dictionary that the next forward pass fills: what the classifier reads, and what each stage returns.

    The keys are "pooled" and the stages' numbers in the file: the stem, every block, the final norm and relu.
    """
    seen: dict[str, Tensor] = {}
    body = layout.unwrap(student).network
    body.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(pooled=inputs[0]))
    for number, stage in enumerate([body.stem, *body.blocks, body.relu]):
        stage.register_forward_hook(lambda _, inputs, output, number=number: seen.update({str(number): output}))
    return seen
