"""Settings of every test."""

from __future__ import annotations

import os

# The tests' networks are so small that threads only wait for each other; child processes inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
