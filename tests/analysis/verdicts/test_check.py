"""One check of the gate: by its numbers alone."""

import numpy as np

from analysis.verdicts.check import PASS, REGRESSION, UNKNOWN, check


def test_unclear_losses_ask_for_more_runs():
    generator = np.random.default_rng(3)
    noisy = generator.normal(0.0, 0.05, 6)
    found = check(noisy - noisy.mean(), "nll", 0.02, 0.05, "guarded")
    assert found.verdict == UNKNOWN
    assert found.missing > 10
    beyond = check(noisy - noisy.mean() + 0.03, "nll", 0.02, 0.05, "guarded")
    assert "beyond the margin" in beyond.words


def test_error_rates_of_the_gate():
    """Equal variants are called regressions at most at alpha; losses at the margin pass at most at alpha."""
    d = np.random.default_rng(0).normal(0, 1, (400, 8))
    equal = [check(row, "nll", 0.1, 0.05, "guarded").verdict for row in d]
    assert equal.count(REGRESSION) / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    at_margin = [check(row + 1.0, "nll", 1.0, 0.05, "guarded").verdict for row in d]
    assert at_margin.count(PASS) / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
