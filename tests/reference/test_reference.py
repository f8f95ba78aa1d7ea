"""The paper's numbers, quantity by quantity; `python -m tests.reference FILE.npz` shows them as a table."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from tests.reference.check import check
from tests.reference.file import Quantity, is_input, quantity_of

DATA = Path(__file__).parents[1] / "data"
FILES = sorted(path.name for path in DATA.glob("*.npz"))
QUANTITIES = [
    pytest.param(file, quantity, id=f"{Path(file).stem}:{quantity}")
    for file in FILES
    for quantity in dict.fromkeys(map(quantity_of, np.load(DATA / file).files))
    if not is_input(quantity)
]


@functools.cache
def results(file: str) -> dict[str, Quantity]:
    return {result.name: result for result in check(DATA / file)[1]}


@pytest.mark.parametrize(("file", "quantity"), QUANTITIES)
def test_quantity(file, quantity):
    result = results(file)[quantity]
    assert result.ok, str(result)


@pytest.mark.parametrize("file", FILES)
def test_nothing_else_is_out(file):
    out = [str(result) for result in results(file).values() if not result.ok]
    assert not out, "\n".join(out)
