"""Divergences of distributions that are given by log-probabilities [..., S]. Each gives [...].

S may be all classes, or the K that a teacher told and one for all others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["forward_kl", "jensen_shannon", "reverse_kl", "scale", "skewed_kl", "softened", "softened_kl"]

# Above, softened distributions are so alike that float32 loses their divergence: it shrinks with 1 / T².
_WIDE_TEMPERATURE = 16.0


def scale(logits: Tensor, temperature: float) -> Tensor:
    """``logits / T``; float64 above a temperature of 16."""
    if temperature > _WIDE_TEMPERATURE:
        logits = logits.double()
    return logits if temperature == 1.0 else logits / temperature


def softened(logits: Tensor, temperature: float) -> Tensor:
    """Logarithms of ``softmax(logits / T)``."""
    return F.log_softmax(scale(logits, temperature), dim=-1)


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """``T² * KL(softmax(teacher / T) || softmax(student / T))``, in the dtype of the student's logits."""
    kl = forward_kl(softened(teacher, temperature), softened(student, temperature))
    return (temperature**2 * kl).to(student.dtype)


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q)``."""
    return _mean_under(log_p, log_p, log_q)


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(q || p)``."""
    return _mean_under(log_q, log_q, log_p)


def jensen_shannon(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    """``beta * KL(p || m) + (1 - beta) * KL(q || m)`` with ``m = beta * p + (1 - beta) * q``, 0 < beta <
    1."""
    log_m = _mixed(log_p, beta, log_q)
    return beta * _mean_under(log_p, log_p, log_m) + (1.0 - beta) * _mean_under(log_q, log_q, log_m)


def skewed_kl(log_p: Tensor, log_q: Tensor, alpha: float, reverse: bool) -> Tensor:
    """``KL(p || alpha * p + (1 - alpha) * q)``, or with p and q exchanged; 0 <= alpha < 1."""
    if reverse:
        log_p, log_q = log_q, log_p
    return _mean_under(log_p, log_p, _mixed(log_p, alpha, log_q) if alpha > 0.0 else log_q)


def _mean_under(log_w: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """``sum(w * (log a - log b))``; what has no weight adds 0, whatever else is there, and has no
    gradient."""
    weight, difference = log_w.exp(), log_a - log_b
    if not _all_above(0.0, weight):
        # 0 * log 0 is 0 in a divergence, and NaN in floating point.
        difference = difference.masked_fill(weight == 0, 0.0)
    return (weight * difference).sum(dim=-1)


def _all_above(bound: float, *tensors: Tensor) -> bool:
    """Whether no care is needed. False with NaN, and where a device would have to be waited for."""
    return all(x.is_cpu and bool(x.detach().amin() > bound) for x in tensors if x.numel())


def _mixed(log_p: Tensor, share: float, log_q: Tensor) -> Tensor:
    """Logarithms of ``share * p + (1 - share) * q``; 0 where both are impossible, which then have no
    weight."""
    if not _all_above(-math.inf, log_p, log_q):
        neither = (log_p == -torch.inf) & (log_q == -torch.inf)
        log_p, log_q = log_p.masked_fill(neither, 0.0), log_q.masked_fill(neither, 0.0)
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))
