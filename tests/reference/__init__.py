"""Comparison with numbers of the paper's official code: `python -m tests.reference FILE.npz [FILE ...]`.

Every quantity of a file is recomputed through the pieces that training uses; no method is written twice.
"""
