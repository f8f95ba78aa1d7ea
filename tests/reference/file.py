"""A file of reference numbers, and the judgement of what was recomputed against it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

# What a tensor-valued quantity is called in a key; everything after it is the path of a layer.
COLLECTIONS = re.compile(
    r"(new_|final_)?(params|batch_stats|momentum)|image_stats|momentum_(student|be)|grads|gradnorm|newparamnorm"
    r"|merged_(notebook|stepval)"
)
GIVEN = re.compile(
    r"(in|teacher\d+|student|be)/.*|stepval/n|traj/\d+/pair"
    r"|.*/(val|tst)/(conf|labels|logits_NMK)|edge/(conf|labels)|lr/steps|aug/(in|h0w0|flip)"
)


@dataclass
class Quantity:
    """One line of the comparison."""

    name: str
    error: float  # the largest relative error of its tensors; infinite where it could not be computed
    tolerance: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # false for nan

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "OUT"
        return f"{self.name:<44} {self.error:9.2e}  {self.tolerance:7.0e}  {verdict:<3}  {self.note}".rstrip()


def quantity_of(key: str) -> str:
    """The quantity that a key belongs to: `step/kd/grads` of `step/kd/grads/backbone/.../w`."""
    parts = key.split("/")
    if parts[0] == "init":
        return "/".join(parts[:2])
    for depth, part in enumerate(parts[:-1], 1):
        if COLLECTIONS.fullmatch(part):
            return "/".join(parts[:depth])
    return key


def is_input(quantity: str) -> bool:
    """Whether a quantity is given (images, weights, predictions ...), not to be recomputed."""
    return bool(GIVEN.fullmatch(quantity))


def relative_error(ours: ArrayLike, theirs: ArrayLike) -> float:
    """||a - b|| / ||b||; the absolute ||a|| where b vanishes, infinite where shapes differ.

    nan stands for "no value" (an empty bin): it equals nan alone.
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return float("inf")
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    scale = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / (scale if scale > 0 else 1))


@dataclass
class ReferenceFile:
    """Keys and arrays of a file; it remembers which of them were used and what came out."""

    path: Path
    arrays: Mapping[str, np.ndarray]  # the file's own
    given: Mapping[str, np.ndarray]  # what to compute from: its own, and what it leaves to its sibling
    tolerance: float
    results: list[Quantity] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def take(self, key: str) -> np.ndarray:
        """An array that a computation starts from. Raises KeyError, naming the file, where there is none."""
        if key not in self.given:
            raise KeyError(f"{self.path.name} has no {key}")
        self.used.add(key)
        return self.given[key]

    def paths(self, prefix: str) -> list[str]:
        """What follows a prefix in the keys."""
        start = prefix + "/" if prefix else ""
        return [key.removeprefix(start) for key in self.given if key.startswith(start)]

    def children(self, prefix: str) -> list[str]:
        """The names right below a prefix, each once: the cases below `step`."""
        return list(dict.fromkeys(path.split("/")[0] for path in self.paths(prefix)))

    def compare(self, name: str, ours: ArrayLike | Mapping[str, ArrayLike], tolerance: float | None = None) -> None:
        """Judge a quantity, where the file has it: an array, or arrays by the paths below the name."""
        if not isinstance(ours, Mapping):
            values = {name: ours}
        else:
            values = {f"{name}/{path}": array for path, array in ours.items()}
        errors = {key: relative_error(a, self.take(key)) for key, a in values.items() if key in self.arrays}
        if not errors:
            return
        worst = max(errors, key=lambda key: np.nan_to_num(errors[key], nan=np.inf))
        note = ""
        if len(errors) > 1:
            note = f"{len(errors)} tensors, worst {worst.removeprefix(name + '/')}"
        self.judge(name, errors[worst], tolerance, note)

    def judge(self, name: str, error: float, tolerance: float | None = None, note: str = "") -> None:
        self.results.append(Quantity(name, error, self.tolerance if tolerance is None else tolerance, note))

    def report_unused(self) -> list[str]:
        """Make every quantity that nothing was compared with a result that is out.

        Returns the names of given arrays that no computation needed, which is no error.
        """
        left: dict[str, int] = {}
        for key in self.arrays:
            if key not in self.used:
                left[quantity_of(key)] = left.get(quantity_of(key), 0) + 1
        for name, count in left.items():
            if not is_input(name):
                self.judge(name, float("inf"), note=f"not computed (tensors: {count})")
        return [name for name in left if is_input(name)]


def open_file(path: Path | str) -> ReferenceFile:
    """Read a file; weights and momentum that X_float32.npz leaves out are those of X_float64.npz beside it.

    The tolerance of a single step is 1e-9 in float64 and 2e-4 in float32, by what the file was computed in.
    """
    path = Path(path)
    arrays = dict(np.load(path))
    given = dict(arrays)
    sibling = path.with_name(path.name.replace("float32", "float64"))
    if "float32" in path.name and sibling.exists():
        given = {key: array for key, array in np.load(sibling).items() if is_input(quantity_of(key))} | given
    return ReferenceFile(path, arrays, given, 1e-9 if precision(arrays) == np.float64 else 2e-4)


def precision(arrays: Mapping[str, np.ndarray]) -> np.dtype:
    """The precision in which the file's logits and losses were computed."""
    computed = [array.dtype for key, array in arrays.items() if key.endswith(("/logits", "/metrics/loss"))]
    return np.result_type(*computed) if computed else np.dtype(np.float32)
