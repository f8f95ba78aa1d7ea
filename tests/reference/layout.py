"""From the layer names of a reference file to this project's networks, and back."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness.training.networks import Normalise
from harness.training.networks.preresnet import PreResNet
from methods.latent_be import LatentBE
from methods.rank_one import RankOne
from tests.reference.differences import Kinks, use_half_relu
from tests.reference.file import ReferenceFile

LEAVES = {"weight": "w", "bias": "b", "dr": "r", "ds": "s", "running_mean": "m", "running_var": "v"}


@dataclass(frozen=True)
class Shape:
    """What the keys and shapes of a file say about its networks."""

    channels: int
    stem: int
    widths: tuple[int, int, int]
    blocks: int  # in each of the three groups
    classes: int

    def __str__(self) -> str:
        widths = ", ".join(map(str, self.widths))
        return f"stem {self.stem}, {self.blocks} blocks a group, widths {widths}, {self.classes} classes"


def read_shape(file: ReferenceFile, name: str) -> Shape:
    """Raises ValueError where the file's network `name` is not of three groups of equally many blocks."""
    kernels = {
        path.replace("_BatchEnsemble", ""): file.given[f"{name}/params/{path}"].shape
        for path in file.paths(f"{name}/params")
        if path.endswith("/w")
    }
    numbers = {int(found[1]) for path in kernels if (found := re.search(r"BasicBlock_(\d+)/", path))}
    if not numbers or len(numbers) % 3 or numbers != set(range(len(numbers))):
        raise ValueError(f"{file.path.name}: {name} has blocks {sorted(numbers)}, not three equal groups of them")
    blocks = len(numbers) // 3
    widths = tuple(kernels[f"backbone/BasicBlock_{group * blocks}/Conv2d_0/w"][-1] for group in range(3))
    *_, channels, stem = kernels["backbone/FirstBlock_0/Conv2d_0/w"]
    return Shape(channels, stem, widths, blocks, kernels["classifier/Linear_0/w"][-1])


def build(file: ReferenceFile, name: str, dtype: torch.dtype, kinks: Kinks) -> nn.Sequential:
    """A plain network like the file's `name`, with its pixel statistics; weights are not loaded yet."""
    shape = read_shape(file, name)
    body = PreResNet(shape.blocks, shape.widths, shape.classes, shape.channels, shape.stem)
    pixels = Normalise([0.0] * shape.channels, [1.0] * shape.channels)
    network = nn.Sequential(OrderedDict(normalise=pixels, network=body)).to(dtype)
    for buffer, leaf in ((pixels.mean, "m"), (pixels.sd, "s")):
        buffer.copy_(torch.from_numpy(file.take(f"{name}/image_stats/{leaf}")).view(-1, 1, 1))
    use_half_relu(network, kinks)
    return network


def unwrap(student: nn.Module) -> nn.Sequential:
    """The network with the layers: a LatentBE student's, or the plain student itself."""
    return student.network if isinstance(student, LatentBE) else student


def layers(student: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer with parameters under its name in the file."""
    body: PreResNet = unwrap(student).network

    def name(kind: str, number: int, layer: nn.Module) -> str:
        return f"{kind}_BatchEnsemble_{number}" if isinstance(layer, RankOne) else f"{kind}_{number}"

    yield f"backbone/FirstBlock_0/{name('Conv2d', 0, body.stem)}", body.stem
    for index, block in enumerate(body.blocks):
        start = f"backbone/BasicBlock_{index}"
        yield f"{start}/BatchNorm2d_0", block.norm1
        yield f"{start}/BatchNorm2d_1", block.norm2
        yield f"{start}/{name('Conv2d', 0, block.conv1)}", block.conv1
        yield f"{start}/{name('Conv2d', 1, block.conv2)}", block.conv2
        if isinstance(block.shortcut, nn.Conv2d):
            yield f"{start}/ProjectionShortcut_0/{name('Conv2d', 0, block.shortcut)}", block.shortcut
    yield "backbone/LastBlock_0/BatchNorm2d_0", body.norm
    yield f"classifier/{name('Linear', 0, body.classifier)}", body.classifier


def parameters(student: nn.Module) -> dict[str, nn.Parameter]:
    """The student's own parameters by path; those of r and s hold the deviation from 1."""
    return {
        f"{path}/{LEAVES[name]}": parameter
        for path, layer in layers(student)
        for name, parameter in layer.named_parameters(recurse=False)
    }


def statistics(student: nn.Module) -> dict[str, Tensor]:
    """Running statistics of batch norm by path."""
    return {
        f"{path}/{LEAVES[name]}": buffer
        for path, layer in layers(student)
        for name, buffer in layer.named_buffers(recurse=False)
        if name in LEAVES
    }


@torch.no_grad()
def load(student: nn.Module, file: ReferenceFile, name: str) -> None:
    """Fill a student with the weights and running statistics of `name`. Raises ValueError unless they fit."""
    for kind, tensors in (("params", parameters(student)), ("batch_stats", statistics(student))):
        paths = set(file.paths(f"{name}/{kind}"))
        if paths != set(tensors):
            raise ValueError(
                f"{file.path.name}: {name}/{kind} and the network differ in {sorted(paths ^ set(tensors))}"
            )
        for path, tensor in tensors.items():
            value = from_file(path, file.take(f"{name}/{kind}/{path}")).to(tensor.dtype)
            tensor.copy_(value - origin(path))


def origin(path: str) -> float:
    """What the student's own parameters count from: of r and s it stores the deviation from 1."""
    return 1.0 if path.endswith(("/r", "/s")) else 0.0


def to_file(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Tensors by path in the file's axes: kernels OIHW -> HWIO, the classifier [out, in] -> [in, out]."""
    arrays = {path: tensor.detach().cpu().numpy() for path, tensor in tensors.items()}
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}
    return {path: a.transpose(axes[a.ndim]) if path.endswith("/w") and a.ndim > 1 else a for path, a in arrays.items()}


def values_to_file(student: nn.Module) -> dict[str, np.ndarray]:
    """The parameters as the file has them, r and s themselves."""
    return {path: array + origin(path) for path, array in to_file(parameters(student)).items()}


def from_file(path: str, array: np.ndarray) -> Tensor:
    """The inverse of `to_file`, for one tensor."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    return torch.from_numpy(
        array.transpose(axes[array.ndim]).copy() if path.endswith("/w") and array.ndim > 1 else array
    )


def images_to_file(images: Tensor) -> np.ndarray:
    """[B, C, H, W] -> [B, H, W, C]."""
    return images.detach().cpu().numpy().transpose(0, 2, 3, 1)


def images_from_file(pixels: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Raw pixels [B, H, W, C] as [B, C, H, W] in [0, 1], divided in the file's own precision."""
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(dtype) / 255
