"""How long the processes of one run wait for each other."""

from __future__ import annotations

import os

OPTION, USUAL_S, MOST_S = "HARNESS_RANKS_TIMEOUT_S", 600.0, 1e6


def of_ranks() -> float:
    """Seconds that a rank waits for the others in a step. Raises ValueError where the user's environment says nonsense."""
    given = os.environ.get(OPTION, "")
    try:
        seconds = float(given or USUAL_S)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_S:
        raise ValueError(f"{OPTION}={given} is no number of seconds, more than 0 and at most {MOST_S:.0f}")
    return seconds
