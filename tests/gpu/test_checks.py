"""`pytest -m gpu`: what only a real GPU can show, in under four minutes on one of them.

Each check prints what it measured. HARNESS_GPU_PAGE=FILE adds each, as soon as it has ended, as a line of JSON to a file:
{"check": 6, "title": ..., "passed": ..., "measured": {...}, "seconds": ...}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.gpu.checks import CHECKS, Check
from tests.gpu.crew import Crew

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="session")
def crew(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Everything that was asked for begins with the first check, some beside each other."""
    if not torch.cuda.is_available():
        if "gpu" in os.environ.get("HARNESS_REQUIRE", "").replace(" ", "").split(","):
            pytest.fail("HARNESS_REQUIRE names gpu, but torch finds no CUDA device", pytrace=False)
        pytest.skip("needs a real CUDA device")
    asked = [item.callspec.params["check"] for item in request.session.items if item.get_closest_marker("gpu")]
    with Crew(asked, tmp_path_factory.mktemp("checks")) as crew:
        yield crew


@pytest.mark.parametrize("check", sorted(CHECKS, key=lambda check: check.alone), ids=str)
def test_check(check: Check, crew: Crew, capsys: pytest.CaptureFixture) -> None:
    outcome = crew.outcome(check)
    with capsys.disabled():
        print(f"\n{outcome}")
    assert outcome.passed, "\n".join(outcome.measured["wrong"])
