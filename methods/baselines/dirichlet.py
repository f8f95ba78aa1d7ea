"""Dirichlet distributions over classes: concentrations alpha [..., K], positive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LARGE = 1e5  # from here on Stirling's series is the more exact one, to 1e-10


def entropy(alpha: Tensor) -> Tensor:
    """Differential entropy [...]."""
    # Sums of alpha, equal on both sides, are left out of them: they would drown the rest where alpha is large.
    return rest(alpha, 1).sum(-1) - rest(alpha.sum(-1), alpha.shape[-1])


def rest(alpha: Tensor, count: int) -> Tensor:
    """log Gamma(alpha) - (alpha - count) digamma(alpha) + alpha, value by value; it grows as log(alpha)."""
    small, large = alpha.clamp_max(LARGE), alpha.clamp_min(LARGE)
    series = (count - 0.5) * large.log() + 0.5 * math.log(2 * math.pi) + 0.5 + (1 / 6 - count / 2) / large
    return torch.where(alpha < LARGE, small.lgamma() - (small - count) * small.digamma() + small, series)


def log_density(alpha: Tensor, log_p: Tensor) -> Tensor:
    """log Dir(p; alpha) [...] of the logs of probabilities [..., K]."""
    return ((alpha - 1) * log_p).sum(-1) - log_normaliser(alpha)


def mean_log(alpha: Tensor) -> Tensor:
    """E[log p] [..., K]."""
    return alpha.digamma() - alpha.sum(-1, keepdim=True).digamma()


def log_normaliser(alpha: Tensor) -> Tensor:
    """log B(alpha) [...]."""
    return alpha.lgamma().sum(-1) - alpha.sum(-1).lgamma()
