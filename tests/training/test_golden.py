"""The first losses of every method are what they were (see tests.golden for how to renew them)."""

from __future__ import annotations

import pytest

import methods
from tests import golden


@pytest.mark.parametrize("method", golden.read())
def test_losses_are_what_they_were(method):
    change = golden.difference(method, golden.read()[method], golden.losses(method))
    assert not change, "\n" + change


def test_every_variant_has_a_golden_run():
    assert set(methods.VARIANTS) <= set(golden.read())


def test_a_change_is_readable():
    change = golden.difference("kd", [2.0, 3.0], [2.0, 3.001])
    assert "step 2  3          -> 3.001" in change
    assert "--refresh" in change
    assert golden.difference("kd", [2.0], [2.000001]) == ""
