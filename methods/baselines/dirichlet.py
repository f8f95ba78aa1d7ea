"""Dirichlet distributions over classes: concentrations alpha [..., K], positive."""

from __future__ import annotations

from torch import Tensor


def entropy(alpha: Tensor) -> Tensor:
    """Differential entropy [...]."""
    total, classes = alpha.sum(-1), alpha.shape[-1]
    return log_normaliser(alpha) + (total - classes) * total.digamma() - ((alpha - 1) * alpha.digamma()).sum(-1)


def log_density(alpha: Tensor, log_p: Tensor) -> Tensor:
    """log Dir(p; alpha) [...] of the logs of probabilities [..., K]."""
    return ((alpha - 1) * log_p).sum(-1) - log_normaliser(alpha)


def mean_log(alpha: Tensor) -> Tensor:
    """E[log p] [..., K]."""
    return alpha.digamma() - alpha.sum(-1, keepdim=True).digamma()


def log_normaliser(alpha: Tensor) -> Tensor:
    """log B(alpha) [...]."""
    return alpha.lgamma().sum(-1) - alpha.sum(-1).lgamma()
