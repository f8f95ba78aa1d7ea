"""A network that was trained elsewhere, as a teacher of the bank: its file read, fitted to a network of ours, judged."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.config import ConfigError
from harness.evaluation.evaluation import count_flops, judge_all, without_infinities
from harness.evaluation.predictions import labels_of, predict_splits
from harness.run.network import build_network, write_network
from harness.run.outcome import describe_source, new_record, timestamp
from harness.runtime import memory
from harness.store.files import digest
from harness.store.predictions import PREDICTIONS, write_predictions
from harness.store.record import write_record
from harness.store.weights import WEIGHTS
from harness.training import networks
from harness.training.data import Dataset
from harness.training.data.augmentation import to_unit

Config = dict[str, Any]
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
INSIDE = ("state_dict", "model_state_dict", "model", "network", "net")  # where training scripts keep the weights
COUNT = "num_batches_tracked"  # of batch norm; files of old torch have none, and nothing depends on it
OUTER, INNER = "normalise.", "network."  # the parts of a network of ours


@dataclass(frozen=True)
class Source:
    """A file of weights, and what its network was trained with, where that is not the data set's own.

    mean, sd: per channel, of pixels in [0, 1]; classes: what its outputs stand for, in their order.
    """

    path: Path
    mean: Sequence[float] | None = None
    sd: Sequence[float] | None = None
    classes: Sequence[str] | None = None

    def about(self) -> dict[str, Any]:
        """What decides the network that is made of it: the file's SHA-256, and how it is read."""
        how = {"mean": self.mean, "sd": self.sd, "classes": self.classes}
        return {
            "sha256": digest(self.path),
            **{key: None if value is None else list(value) for key, value in how.items()},
        }


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights in a file by name, wrappers' prefixes stripped. Raises ConfigError where there are none."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file of weights")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever torch and safetensors make of somebody's file
        raise ConfigError(
            f"{path} is no safetensors file and no torch file of weights alone ({type(error).__name__}): save network.state_dict()"
        ) from error
    for _ in INSIDE:  # no deeper: a file may hold itself
        if isinstance(found, Mapping):
            found = next((found[key] for key in INSIDE if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()) or not found:
        raise ConfigError(f"{path} holds no weights by name: save network.state_dict()")
    state = {str(name).replace("._orig_mod.", "."): value for name, value in found.items()}
    while wrapper := next((text for text in WRAPPERS if all(name.startswith(text) for name in state)), None):
        state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state


def fit(source: Source, config: Config, data: Dataset) -> nn.Module:
    """The network of a configuration with a file's weights, on the CPU. Raises ConfigError for the first that does not fit."""
    state = read_state(source.path)
    rows = None if source.classes is None else rows_of(source, data)
    outputs = data.classes if source.classes is None else len(source.classes)
    try:
        network = networks.build(config["model"], outputs, data.mean, data.sd, None, data.size, config["network"])
    except ValueError as error:
        raise ConfigError(f"model={config['model']}: {error}") from error
    whole = network.state_dict()
    if not state.keys() & whole.keys():  # of the bare network, which may have an INNER part of its own
        state = {INNER + name: value for name, value in state.items()}
    own = {name: value for name, value in whole.items() if name.startswith(OUTER)}
    state = {**own, **{name: value for name, value in whole.items() if name.endswith(COUNT)}, **state}
    check_fits(state, whole, source.path, config["model"])
    network.load_state_dict(state)
    normalise(network, source, config["model"])
    network.eval().requires_grad_(False)
    if rows is not None:
        network = choose_outputs(network, rows, source, config, data)
    return network


def check_fits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, model: str) -> None:
    """Raise ConfigError for the first weight, in the network's order, that a file lacks or has in another shape, and for
    one that the network lacks or that is no number.
    """
    for name, tensor in wanted.items():
        plain = name.removeprefix(INNER)
        if name not in state:
            raise ConfigError(f"{path} is no {model}: it has no {plain} {list(tensor.shape)}")
        if (found := state[name].shape) != tensor.shape:
            others = "; --classes FILE where it knows others" if found[1:] == tensor.shape[1:] else ""
            raise ConfigError(
                f"{path} is no {model} for these images and classes: its {plain} is {list(found)}, not "
                f"{list(tensor.shape)}{others}"
            )
        if not is_alike(state[name], tensor):
            kinds = f"{state[name].dtype} in {state[name].layout} on {state[name].device}"
            raise ConfigError(f"{path}: {plain} is {kinds}, not plain {tensor.dtype} or nearly so")
        if not state[name].to(tensor.dtype).isfinite().all():
            raise ConfigError(f"{path}: {plain} holds values that are no numbers")
    if unknown := next((name for name in state if name not in wanted), None):
        raise ConfigError(f"{path} is no {model}, which has no {unknown.removeprefix(INNER)}")


def is_alike(found: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor's values are there, and those of a network's, but for rounding."""
    dense = found.layout == torch.strided and found.device == wanted.device and not found.is_quantized
    whole = not wanted.is_floating_point()  # as a COUNT is, which casts of whole networks make a fraction
    return dense and (found.is_floating_point() or whole) and not found.is_complex()


def normalise(network: nn.Module, source: Source, model: str) -> None:
    """Have a network normalise its input as it was trained."""
    for name in ("mean", "sd"):
        values = getattr(source, name)
        if values is None:
            continue
        if not hasattr(network, "normalise"):
            raise ConfigError(f"--{name}: model={model} normalises its input itself")
        buffer = getattr(network.normalise, name)
        if not all(map(math.isfinite, values)) or (name == "sd" and min(values) <= 0):
            raise ConfigError(f"--{name} must be {'positive ' if name == 'sd' else ''}numbers, not {list(values)}")
        if len(values) != len(buffer):
            raise ConfigError(f"--{name} has {len(values)} values, the images have {len(buffer)} channels")
        buffer.copy_(torch.tensor(list(values)).view_as(buffer))


def rows_of(source: Source, data: Dataset) -> list[int]:
    """Which output of the network stands for each class of the data set, in the set's order."""
    names = [str(name) for name in data.names or range(data.classes)]
    given = list(source.classes)
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise ConfigError(f"--classes names {twice!r} twice")
    if missing := next((name for name in names if name not in given), None):
        raise ConfigError(f"--classes does not name {missing!r}, a class of the data set")
    return [given.index(name) for name in names]


def choose_outputs(network: nn.Module, rows: list[int], source: Source, config: Config, data: Dataset) -> nn.Module:
    """The network with those outputs alone, in their order: its last layer's rows. Raises ConfigError where it is not the
    last layer that decides them.
    """
    outputs, images = len(source.classes), to_unit(data.test.images[:8])
    before = network(images)[:, rows]
    last = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == outputs][-1:]
    for layer in last:
        layer.weight = nn.Parameter(layer.weight[rows], requires_grad=False)
        layer.bias = None if layer.bias is None else nn.Parameter(layer.bias[rows], requires_grad=False)
        layer.out_features = len(rows)
    if not last or (after := network(images)).shape != before.shape or not torch.allclose(after, before, atol=1e-5):
        raise ConfigError(f"--classes: the outputs of model={config['model']} are not those of its last linear layer")
    plain = build_network(config, data)
    plain.load_state_dict(network.state_dict())
    return plain.eval().requires_grad_(False)


def write_teacher(
    directory: Path, config: Config, network: nn.Module, source: Source, data: Dataset, fingerprint: str
) -> dict[str, Any]:
    """Judge an imported network, and write it as a finished teacher; returns its record. The caller holds the claim."""
    started = time.time()
    device = data.test.labels.device
    network = network.to(device)
    logits, labels = predict_splits(network, data), labels_of(data)
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise ConfigError(f"{source.path} gives answers that are no numbers")
    record = new_record(config, "done", 0.0, None)
    record["metrics"], notes = judge_all(logits, labels, {})
    record["selection"] = {"epoch": 0, "acc": record["metrics"]["student"]["validation"]["acc"]}
    record["cost"] = {
        "wall_s": time.time() - started,
        "device_s": 0.0,
        "images_per_s": 0.0,
        "peak_memory_bytes": memory.peak_of_this_process(),
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": count_flops(network, data.test.images[:1]),
    }
    record["provenance"] |= {
        **describe_source(config, device),
        "started": timestamp(started),
        "ended": timestamp(time.time()),
        "attempts": 1,
        "arithmetic": [],
        "teachers": [],
        "teacher_weights": {},
        "teacher_views": False,
        "data": fingerprint,
        "imported": {"file": source.path.name, **source.about()},
    }
    record, lost = without_infinities(record)
    record["notes"] = [*notes, *(f"{name} is no number" for name in lost)]
    about = {"model": config["model"], "data": config["data"]["name"], "classes": str(data.classes)}
    record["files"] = {
        PREDICTIONS: write_predictions(directory, logits, labels),
        WEIGHTS: write_network(directory, network, about),
    }
    return write_record(directory, record)
