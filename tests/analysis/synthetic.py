"""Run directories as the harness leaves them, with numbers from a seeded generator.

The metrics of a run are either given, or computed here from drawn logits, so that record and predictions agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.store.files import digest
from harness.store.identity import run_hash
from harness.store.predictions import PREDICTIONS
from harness.store.record import VERSION, read_record, write_record
from harness.store.weights import WEIGHTS, write_weights

DEFAULTS = {
    "kd": {"alpha": 1.0, "temperature": 4.0},
    "ensemble_kd": {"alpha": 1.0, "temperature": 4.0},
    "weight_averaging": {"alpha": 1.0, "temperature": 4.0, "merge": "inner"},
    "perturbation": {"alpha": 1.0, "temperature": 4.0, "step": 1 / 255},
    "combined": {"alpha": 1.0, "temperature": 4.0, "merge": "inner", "student_term": True, "step": 1 / 255},
}
TRAIN = {"epochs": 40, "batch_size": 50, "lr": 0.1, "checkpoint_every": 5}


def logits(quality: float, seed: int, run: int, images: int = 400, classes: int = 10, sharpness: float = 1.0):
    """[images, classes] and labels [images]: labels are the same for every run, runs of one seed share noise."""
    fixed = np.random.default_rng(7)
    labels = fixed.integers(0, classes, images)
    hard = fixed.normal(0, 1.0, (images, classes))
    shared = np.random.default_rng([seed, 1]).normal(0, 0.5, (images, classes))
    own = np.random.default_rng([seed, run, 2]).normal(0, 0.6, (images, classes))
    z = hard + shared + own
    z[np.arange(images), labels] += quality
    return (sharpness * z).astype(np.float16), labels


def measure(z: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    z = z.astype(float)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    top, correct = p.max(1), z.argmax(1) == labels
    bins = np.clip(np.ceil(top * 15).astype(int) - 1, 0, 14)
    ece = sum(abs(top[bins == b].mean() - correct[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    nll = float(-np.log(p[rows, labels]).mean())
    onehot = np.eye(z.shape[1])[labels]
    return {
        "acc": float(correct.mean()), "nll": nll, "ece": float(ece),
        "brier": float(((p - onehot) ** 2).sum(1).mean()),
        "nll_ts": nll * 0.98, "ece_ts": float(ece) * 0.5, "temperature": 1.1,
    }  # fmt: skip


def make_run(
    folder: Path,
    method: str,
    seed: int,
    *,
    teacher_set: int = 0,
    metrics: dict[str, float] | None = None,
    quality: float | None = None,
    options: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    data: str = "digits",
    model: str = "preresnet_tiny",
    status: str = "done",
    revision: str = "a" * 40,
    teachers: list[str] | None = None,
    weights: str | None = "f" * 64,
    fingerprint: str = "split0",
    study: dict[str, Any] | None = None,
    speed: float = 1000.0,
    memory: float = 3 * 2**27,
    device: str = "cpu",
    diagnostics: bool = False,
    defaults: bool = True,
    files: bool = True,
) -> Path:
    """One run directory; returns it."""
    config = {
        "method": {"name": method, **DEFAULTS.get(method, {}), **(options or {})},
        "data": {"name": data, "root": None, "padding": 1},
        "model": model,
        "train": {**TRAIN, **(train or {})},
        "teachers": {"size": 4, "set": teacher_set, "model": None, "train": {}},
        "evaluate": {"diagnostics": diagnostics},
        "seed": seed,
        "study": study,
    }
    names = teachers or [f"{data}-set{teacher_set}-m{m}" for m in range(1 if method == "kd" else 4)]
    name = run_hash(config)
    directory = folder / f"{method}-{data}-s{seed}-{name}"
    directory.mkdir(parents=True, exist_ok=True)
    run = int(name[:6], 16)
    z, labels = logits(3.0 if quality is None else quality, seed, run)
    test = {**measure(z, labels), **(metrics or {})}
    done = status == "done"
    record = {
        "version": VERSION,
        "hash": name,
        "status": status,
        "error": None if done else {"type": "RuntimeError", "message": "loss is not finite", "traceback": ""},
        "config": config,
        "metrics": {
            "student": {"validation": test, "test": test},
            "teacher": {"test": measure(*logits(2.9, 0, 1))},
            "ensemble": {"test": measure(*logits(3.4, 0, 2))},
        }
        if done
        else None,
        "diagnostics": _diagnostics(method, seed) if diagnostics else None,
        "shift": None,
        "ood": None,
        "selection": {"epoch": 40, "acc": test["acc"]},
        "cost": {
            "wall_s": 11.0, "device_s": 10.0 + seed, "images_per_s": speed, "peak_memory_bytes": memory,
            "parameters": 21000, "flops": 3_000_000,
        },
        "provenance": {
            "harness": "0.1.0",
            "versions": {"python": "3.11", "torch": "2.14"},
            "git": {"revision": revision, "dirty": False, "diff_hash": None},
            "host": "host", "device": device, "threads": 2, "slurm": None,
            "command": f"python -m harness method={method} seed={seed}",
            "started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:00:11+00:00",
            "attempts": 1, "streams": {},
            "teachers": names,
            **({"teacher_weights": dict.fromkeys(names, weights)} if weights else {}),
            "data": fingerprint,
            **({"method_defaults": DEFAULTS.get(method, {})} if defaults else {}),
        },
    }  # fmt: skip
    if files and done:
        np.savez(
            directory / PREDICTIONS,
            test_logits=z,
            test_labels=labels,
            validation_logits=z[:50],
            validation_labels=labels[:50],
        )
        lines = [
            {"epoch": e, "step": 10 * e, "loss": 2 / e + 0.01 * seed, "lr": 0.1, "images_per_s": speed,
             "elapsed_s": e,
             **({"validation": {"acc": test["acc"] - 0.5 / e, "nll": test["nll"] + 0.5 / e}} if e % 2 == 0
                else {})}
            for e in range(1, 9)
        ]  # fmt: skip
        (directory / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record["files"] = {
            PREDICTIONS: digest(directory / PREDICTIONS),
            WEIGHTS: write_weights(directory, {"weight": np.zeros(3, np.float32)}, {}),
        }
    write_record(directory, record)
    return directory


def _diagnostics(method: str, seed: int) -> dict[str, Any]:
    def diversity(size: float) -> dict[str, dict[str, float]]:
        factor = {"train": 0.5, "test": 1.0, "perturbed": 1.6}
        values = {"pairwise_kl": 0.3, "disagreement": 0.08, "ambiguity": 0.05}
        return {s: {k: size * f * v * (1 + 0.01 * seed) for k, v in values.items()} for s, f in factor.items()}

    members = method in ("weight_averaging", "combined")
    t = [round(0.1 * i, 1) for i in range(11)]
    bump = [0.3 + 0.2 * x * (1 - x) for x in t]
    barriers = {
        f"{i}-{j}": {
            "t": t,
            "loss": bump,
            "loss_bn": [0.3 + 0.1 * x * (1 - x) for x in t],
            "barrier": 0.05,
            "barrier_bn": 0.025,
        }
        for i in range(3)
        for j in range(i + 1, 4)
    }
    return {
        "teachers": diversity(1.0),
        "members": diversity(0.3) if members else None,
        "fidelity": {"agreement": 0.95, "kl": 0.04},
        "barriers": barriers if members else None,
        "dee": 1.7,
        "dee_cap": 4,
    }


def change(directory: Path, key: str, value: Any) -> Path:
    """Set one value of a record, by its dotted name; returns the run directory, which is another for another
    configuration.
    """
    record = read_record(directory)
    *groups, name = key.split(".")
    node = record
    for group in groups:
        node = node.setdefault(group, {})
    node[name] = value
    old, record["hash"] = record["hash"], run_hash(record["config"])
    directory = directory.rename(directory.with_name(directory.name.replace(old, record["hash"])))
    write_record(directory, record)
    return directory


EFFECTS = {
    "kd": 0.06,
    "ensemble_kd": 0.0,
    "weight_averaging": -0.03,
    "perturbation": -0.05,
    "combined": -0.12,
}


def make_study(
    folder: Path, seeds: range = range(8), sets: range = range(1),
    methods: tuple[str, ...] = tuple(EFFECTS), *,
    clean: bool = True, noise: float = 0.01, study: dict[str, Any] | None = None, **more: Any,
) -> Path:  # fmt: skip
    """A sweep with known effects on NLL; accuracy and the rest follow from the drawn logits."""
    generator = np.random.default_rng(11)
    arms = [(m, {}) for m in methods] + ([("combined", {"student_term": False})] if clean else [])
    for number in sets:
        for seed in seeds:
            base = 0.5 + 0.05 * generator.normal()
            for method, options in arms:
                effect = -0.08 if options else EFFECTS.get(method, 0.0)
                value = base + effect + noise * generator.normal()
                make_run(folder, method, seed, teacher_set=number, metrics={"nll": value},
                         quality=3.0 - 4 * effect,
                         options=options, study=study, **more)  # fmt: skip
    return folder
