"""The handwritten digits that come with scikit-learn: 1,797 real 8x8 images in ten classes (no download)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.runtime.console import Console
from harness.training.data.dataset import Dataset, Split, check_validation

CLASSES, VALIDATION = 10, 300
# A letter for every image, t(rain), v(alidation) or (t)e(st): 500, 300 and 997, stratified, as `draw` drew them. Kept, so
# that they depend on no version of scikit-learn, and no run waits a second for its import.
SPLIT = (
    "eeeteveveveeettetevtvetteeteeteteveeteteeeevteetveeeetvteeeevtteevteetteveeeteetteeveeeettetttteeete"
    "veeeteeevtevtetveeteveveeeeteeeeetetvvevevtvvtveeeetvttetveevveveeeteveevetvvetvvttteeeteeeettevteee"
    "tteveettteteeeevetetetvvvteetvtetvteetteevveveeeetteeeeetvettvteeetetvvvtteeeveeeeeetvetetevveetttee"
    "teveeeeeeeetetetvteeetveeveveetetveeevveeeeteeeevetevetveteveeevetetvevveeeeeeteeeeeeteeeevvtettveev"
    "tvteveeetteteeeveettevveveevtteteetteeeeeeevtteteevtetettteetvteeeeetetteteeetetveetvtveteeeeeeteeve"
    "etetetetteteteeeetteeeeteveeeteevvtetteetttvtettetveveveeettettteeteeettveteetttteeeettetvettettttev"
    "ttveeeeeeeeetvevetvettvvtttetvteteveeeteteeeeveveeeteevtvevtvtteeeeevttevvteeeettvetvtteteeeveeteeet"
    "eeeteevteevttvttetteeteeveteeeeeetetteeeveeeevteveetetvteeeveetttteeeveeeeeeetttveeeeteeeeeteteeteee"
    "etetveeveeeeeeeeeeeeeeetvevtteeettevvetteetevveetteteeeeeeteeteeeevevetveeeeettvvttvteteetetveetetee"
    "eeeeeeeeeetetvteteeevvteeeeveeeettetveeeetveeeevtetetevttvtveeeetvteeteteettteeettetteeeeeevetveeete"
    "eveeveeeeeeteeeeetevveeeeetevvetvveeeeeeveeteeteteveeeeteeeeevvttetvtvttvetvetteteevttetetetevteetev"
    "tetteveeeevtetevevetteeetetvtevtetteeeeeeeetveveeeeeevteteteveevtteeeeeteeeveetteveeeeveeveeetevevee"
    "eeeeeeeeevteveeteeeveeteettveteteeteteeeetevvvetvteeveeettevteevetteeeeeteetvteettevveeeeetveeeeeeee"
    "vvettttteteveevevtteeeeettveeeeeeeteeteteeeteeteeveeeettevtvvevvevveeeeeeteeettetetetetteeveetteteet"
    "eevveeeevtevvttettvteteteeeteetteeveeevtevetevtteeeeteteteeevvevtteeteeeeeeteeettveeetveevevvvteeetv"
    "evvetetteeteeeveeeeveeteevtteeeteeeteevteteeteevtttetteeveeteeeetveetveteteteeeevtetevvetveettvvette"
    "eeeeteeteteeeeevteeetvtvtteteeteetevteeveevtteeeevevveteeevtevtteeeveeeeteeetevvetvvtvteeeteettveeet"
    "evtteeeevevteveeeevttetevvetevetveeeeveeteevteveeveveteeeveveeteteeetteeeeteeveeeetttvveeeveteett"
)


def load(config: dict[str, Any], console: Console) -> Dataset:
    """A fixed stratified split of 500, 300 and 997 images; small, so that results sit below the ceiling.

    Of train and validation images together there are 800, however many are held out.
    """
    package = importlib.util.find_spec("sklearn")
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",", dtype=np.int64)
    labels = table[:, -1]
    images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)  # grey levels 0..16
    letters = np.array(list(SPLIT))
    train, validation, test = (np.flatnonzero(letters == letter) for letter in "tve")
    held = check_validation(config["validation"] or VALIDATION, len(labels) - len(test), CLASSES, "digits")
    if held != VALIDATION:
        train, validation = draw(labels, len(test), held)

    def split(rows: np.ndarray) -> Split:
        return Split(torch.from_numpy(images[rows]), torch.from_numpy(labels[rows]))

    pixels = images[train] / 255
    return Dataset(
        CLASSES, (float(pixels.mean()),), (float(pixels.std()),), split(train), split(validation), split(test)
    )


def draw(labels: np.ndarray, test: int, validation: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the train and validation images, where so many images are for testing and for validation."""
    from sklearn.model_selection import train_test_split

    rest, _ = train_test_split(np.arange(len(labels)), test_size=test, stratify=labels, random_state=0)
    drawn = train_test_split(rest, test_size=validation, stratify=labels[rest], random_state=0)
    return np.sort(drawn[0]), np.sort(drawn[1])
