"""The benchmark: what a step of every method costs, against what it must cost."""
