"""A finished student as files that need nothing of this package."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.config import ConfigError
from harness.run.network import write_network
from harness.training.data import Dataset, preparation
from harness.training.data.augmentation import to_unit

ABOUT = "about.json"  # in student.pt2


def export(network: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    """A program for images [B, C, H, W] in [0, 1] of any batch size B; checked on `images`."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        expected = network(images[:1])
        found = program.module()(images[:1])
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
        raise ConfigError(
            f"the exported program differs from the network by {float((found - expected).abs().max()):.3g}"
        )
    return program


def describe(record: dict[str, Any], data: Dataset) -> dict[str, str]:
    """What there is to know of a student, by name; lists are JSON."""
    config = record["config"]
    return {
        # Of a picture the shorter side is scaled to `resize`, then the middle of size x size is cut out; preparation.py.
        "resize": str(data.resize),
        "size": str(data.size),
        "channels": str(data.train.images.shape[1]),  # 1: grey; 3: red, green, blue
        "input": "pixels in [0, 1]",
        "layout": "batch, channels, height, width",
        "mean": json.dumps(data.mean),  # what the network takes from the pixels,
        "sd": json.dumps(data.sd),  # and divides them by
        "output": "logits",
        "classes": str(data.classes),
        "class_names": json.dumps([legible(name) for name in data.names] or list(map(str, range(data.classes)))),
        "model": config["model"],
        "data": config["data"]["name"],
        "method": config["method"]["name"],
        "run": record["hash"],
        "test_acc": str(record["metrics"]["student"]["test"]["acc"]),
    }


def legible(name: str) -> str:
    """A name of a folder as text that every reader takes: what is no UTF-8 is written as \\xff."""
    return os.fsencode(name).decode(errors="backslashreplace")


def write(folder: Path, network: nn.Module, record: dict[str, Any], data: Dataset, onnx: bool) -> list[Path]:
    """Write the student's files, all of them or none; returns their paths. Raises OSError."""
    about, images = describe(record, data), to_unit(data.test.images[:2])
    program, content = export(network, images), io.BytesIO()
    torch.export.save(program, content, extra_files={ABOUT: json.dumps(about)})
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as scratch:
        place = Path(scratch)
        write_network(place, network, about)
        shutil.copy(preparation.__file__, place / "preparation.py")
        (place / "student.pt2").write_bytes(content.getvalue())
        if onnx:
            write_onnx(place / "student.onnx", program, images, about)
        return [path.replace(folder / path.name) for path in sorted(place.iterdir())]


def write_onnx(path: Path, program: torch.export.ExportedProgram, images: Tensor, about: dict[str, str]) -> None:
    """The program as one ONNX file, from `pixels` to `logits`."""
    names = {"input_names": ["pixels"], "output_names": ["logits"]}
    found = torch.onnx.export(program, (images,), dynamo=True, verbose=False, **names)
    found.model.metadata_props.update(about)
    found.save(path, external_data=False)
