"""Tempered cross-entropies. Every variant's loss is made of these two terms (Nam et al. 2022, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.method import at_least_float32


def soften(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / T) over the last axis, any leading axes."""
    return torch.softmax(at_least_float32(logits) / temperature, dim=-1)


def match(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 * mean of -sum_k p_k log softmax(z / T)_k; the mean runs over all leading axes.

    logits and target are [..., K]. T^2 keeps the gradient's size independent of T (Hinton et al. 2015).
    """
    log_q = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return temperature**2 * -(target * log_q).sum(-1).mean()


def diverge(logits: Tensor, target: Tensor, temperature: float) -> Tensor:
    """T^2 KL(target || softmax(z / T)) of every row: [...], of logits and targets [..., K]."""
    log_q = F.log_softmax(at_least_float32(logits) / temperature, dim=-1)
    return temperature**2 * (torch.xlogy(target, target) - target * log_q).sum(-1)


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with labels [B], or distributions over the classes [B, K] (smoothed labels).

    logits are [B, K], or [M, B, K], where it is the mean over the members too.
    """
    logits = at_least_float32(logits)
    if labels.is_floating_point():
        return F.cross_entropy(logits.flatten(0, -2), labels.expand(logits.shape).flatten(0, -2))
    labels = labels.expand(logits.shape[:-1])
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())


def blend(alpha: float, label: Tensor, distillation: Tensor) -> dict[str, Tensor]:
    """(1 - alpha) label term + alpha distillation term, with both parts by name."""
    loss = distillation if alpha == 1 else (1 - alpha) * label + alpha * distillation
    return {"loss": loss, "loss_ce": label.detach(), "loss_kd": distillation.detach()}
