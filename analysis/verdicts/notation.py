"""How probabilities are written."""

import math


def probability(p: float) -> str:
    """A p-value in text: .031, < .0001, none."""
    if math.isnan(p):
        return "none"
    if p < 0.0001:
        return "< .0001"
    text = f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"
    return text.removeprefix("0") if p < 1 else "1"


def p_equals(p: float, name: str = "p") -> str:
    """`p = .031`, `p < .0001`."""
    text = probability(p)
    return f"{name} {text}" if text.startswith("<") else f"{name} = {text}"


def level(alpha: float) -> str:
    """An error level as it was declared: .05."""
    return f"{alpha:g}".removeprefix("0")
