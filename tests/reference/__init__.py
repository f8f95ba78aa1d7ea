"""Comparison with numbers of the paper's official implementation: `python -m tests.reference FILE.npz [FILE ...]`.

Every quantity of a file is recomputed through the pieces that training uses; nothing of a method is written twice.
"""
