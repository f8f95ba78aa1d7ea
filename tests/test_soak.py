"""The soak's short form; `python -m tests.soak` is the long one."""

from __future__ import annotations

import os

import pytest

from tests.soak import LOCAL, soak


@pytest.mark.slow
def test_nothing_is_wrong_after_a_quarter_of_a_minute_of_faults() -> None:
    assert soak(LOCAL, dict(os.environ), minutes=0.25, count=4, seed=1) == []
