"""Every method launches what it launched (see tests.launches for how to renew the numbers)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from tests import launches


@pytest.mark.parametrize("case", launches.CASES)
def test_launches_are_what_they_were(case):
    version, stored = launches.read()
    change = launches.difference(case, version, stored.get(case), launches.count(case))
    assert not change, "\n" + change


def test_a_change_is_readable():
    before, now = Counter(convolution=10, add=5), Counter(convolution=12, add=5)
    said = launches.difference("kd", torch.__version__, before, now)
    assert "15 launches a step" in said and "now 17" in said
    assert "convolution" in said and "10 -> 12    +2" in said and "add " not in said
    assert launches.difference("kd", "1.0", before, now) == ""  # another torch, about as many
    assert "kd is new, with 17 launches" in launches.difference("kd", "1.0", None, now)
    assert "now 27" in launches.difference("kd", "1.0", before, Counter(convolution=22, add=5))
