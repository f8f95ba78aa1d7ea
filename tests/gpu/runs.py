"""Whole commands: packs, deployment, and which device a run takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from harness.run.run import execute
from harness.runtime.console import Console
from harness.store.identity import run_directory
from harness.store.record import read_record
from harness.store.weights import WEIGHTS
from harness.training.data import Split, train_batches
from harness.training.data.files import FileImages
from tests.gpu.child import ROOT
from tests.gpu.sheet import Sheet
from tests.running import configure

SMOKE = ("train=smoke", "train.steps_per_epoch=5", "teachers.size=2", "evaluate.diagnostics=false")


def command(*arguments: str, **environment: str) -> str:
    """Run one of the project's commands, and return what it said. Raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        last = done.stdout.strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeError(f"python -m {' '.join(arguments)} ended with {done.returncode}: {last[0]}")
    return done.stdout


def packs(sheet: Sheet) -> None:
    """Check 12: four runs (two in a rehearsal) one after the other, and beside each other on one device."""
    chosen, most = ("kd", 2) if sheet.small else ("kd,combined", 4)
    bank = f"bank={sheet.folder / 'bank'}"
    arms = ("-m", f"method={chosen}", "seed=0,1", f"device={sheet.device.type}", "deterministic=true", *SMOKE, bank)
    for pack in (1, most):
        said = command("harness", *arms, f"runs={sheet.folder / str(pack)}", f"sweep.pack={pack}")
        print(said)
    found = {path.parent.name: path for path in (sheet.folder / str(most)).glob(f"*/{WEIGHTS}")}
    same = [
        name for name, path in found.items() if path.read_bytes() == (sheet.folder / "1" / name / WEIGHTS).read_bytes()
    ]
    sheet.note(runs=len(found), same=len(same))
    sheet.expect(
        len(same) == most, f"of {most} students {len(found)} were trained in a pack, {len(same)} to the same weights"
    )


def deploys_on_a_cpu(sheet: Sheet) -> None:
    """Check 13: where no GPU is seen, the student repeats its predictions and is exported."""
    config = configure(sheet.folder / "runs", "combined", device=str(sheet.device))
    captured = execute(config, Console())["provenance"]["captured"]
    sheet.note(captured=captured)
    if sheet.on_gpu:
        sheet.expect(captured and captured["graphs"] > 0, f"the steps of a run are not captured: {captured}")
    directory = run_directory(config)
    said = command("harness.deploy", str(directory), CUDA_VISIBLE_DEVICES="")
    print(said)
    difference = next(line for line in said.splitlines() if line.startswith("repeats"))
    sheet.note(said=difference)
    program = torch.export.load(directory / "deploy" / "student.pt2").module()
    with torch.no_grad():
        sheet.expect(program(torch.zeros(3, 1, 8, 8)).shape == (3, 10), "the exported program gives no logits [B, K]")


def chooses_its_device(sheet: Sheet) -> None:
    """Check 15: the device of runs under several CUDA_VISIBLE_DEVICES; batches of files with several workers."""
    on = torch.cuda.get_device_name(sheet.device) if sheet.device.type == "cuda" else "cpu"
    names = {"-1": "cpu"}
    if sheet.device.type == "cuda":
        names = {f"GPU-{torch.cuda.get_device_properties(sheet.device).uuid}": on, "0": on, **names}
    for visible, expected in names.items():
        runs = sheet.folder / f"visible{visible}"
        command("harness", "method=supervised", *SMOKE, f"runs={runs}", CUDA_VISIBLE_DEVICES=visible)
        (record,) = runs.glob("*/record.json")
        device = read_record(record.parent)["provenance"]["device"]
        sheet.note(**{visible: device})
        sheet.expect(device == expected, f"CUDA_VISIBLE_DEVICES={visible} runs on {device}, not on {expected}")
    one, several = (batches_of_files(sheet, workers) for workers in (0, 2 if sheet.small else 4))
    same = [torch.equal(a, b) and a.device.type == sheet.device.type for a, b in zip(one, several, strict=True)]
    sheet.note(batches=len(same), same=sum(same))
    sheet.expect(all(same), "the number of workers shows in batches of files")


def batches_of_files(sheet: Sheet, workers: int) -> list[torch.Tensor]:
    """An epoch's batches of noise in PNG files."""
    folder = sheet.folder / "images"
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(0)
    files: list[Path] = []
    for k in range(40):
        files.append(folder / f"{k}.png")
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(files[-1])
    split = Split(FileImages(files, 16, workers), torch.arange(40) % 3).to(sheet.device)
    return [batch.images for batch in train_batches(split, 0, True, 0, 10).epoch(0)]
