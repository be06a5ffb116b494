"""Sets of candidates that a student draws: how likely they were, and policy gradients by what they brought.

A set is drawn without replacement by Plackett and Luce: each next item with the probability that the softmax
of the logits gives it among those that are left. That is what the K largest of logits plus independent Gumbel
noise are (Yellott, 1977; Kool et al., "Stochastic Beams and Where to Find Them", ICML 2019).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from edldist.errors import ConfigError, InputError
from edldist.losses.checks import check_ids
from edldist.losses.reduction import Reduction, check_reduction, reduce

__all__ = ["Credit", "candidate_gradient", "draw_candidates", "inclusion_log_probs"]

Credit = Literal["inclusion", "set"]

_CREDITS = ("inclusion", "set")
_NEVER = 2.0**-20
"""Logits of -inf count as this share of the lowest finite number: nobody draws such an item, and where only
such items are left, derivatives are 0 and not NaN. Sums of a million of them are finite still."""


def draw_candidates(logits_BN: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw sets of items without replacement, by Plackett and Luce.

    Args:
        logits_BN: float [B, N], or any leading dimensions: of N items; -inf for those that may not be drawn.
        count: K, the size of a set, from 1 to the number of items that may be drawn.
        generator: of the noise, on the logits' device.

    Returns:
        int64 [B, K]: the items, in the order in which they were drawn.

    Raises:
        InputError: the logits are no floats, or K is none of 1 to N; on the CPU also: a logit is NaN, or a
            list has fewer than K items that may be drawn.
    """
    _check_logits("draw_candidates", logits_BN)
    _check_size("draw_candidates", count, logits_BN.shape[-1])
    _check_drawable(logits_BN, count)
    logits = _computed(logits_BN.detach())
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - noise.clamp_(min=torch.finfo(logits.dtype).tiny).log()).topk(count, dim=-1).indices


def inclusion_log_probs(logits_BN: Tensor, candidates_BK: Tensor) -> Tensor:
    """How likely each candidate was to be in the set at all, given the order of the others.

    ``log(1 - prod_k (1 - p_k))``, where ``p_k`` is the probability with which the candidate is drawn in the
    k-th place if it was not drawn before, and the others come in the order in which they did (Kiyohara et
    al., "Credit-assigned Policy Gradient for Early Stage Retrieval in Two-stage Ranking", 2026). The order of
    the others does not depend on the candidate, so the mean of ``1 - prod_k (1 - p_k)`` over that order is
    the probability that the candidate is in a set, and its derivative by the candidate's own logit is that of
    this probability.

    Args:
        logits_BN: float [B, N], or any leading dimensions; -inf for items that may not be drawn.
        candidates_BK: integers [B, K]: different items, in the order in which they were drawn.

    Returns:
        [B, K]; float32, or float64 where the logits are. 0 where the set has all items that may be drawn.

    Raises:
        InputError: shapes, dtypes or devices do not fit; on the CPU also: an item is none of N, or twice in a
            set, or may not be drawn.
    """
    loss = "inclusion_log_probs"
    candidates_BK = _checked(loss, logits_BN, candidates_BK)
    logits_BN = _computed(logits_BN)
    drawn_BK = logits_BN.gather(-1, candidates_BK)
    count = drawn_BK.shape[-1]
    if count == logits_BN.shape[-1]:
        return drawn_BK * 0.0  # whatever the logits are
    # Row c: what is left of the others when so many were drawn, candidate c apart: [B, K, K + 1], last first.
    itself = torch.eye(count, dtype=torch.bool, device=drawn_BK.device)
    others = drawn_BK.flip(-1).unsqueeze(-2).expand(*drawn_BK.shape, count)
    others = others.masked_fill(itself.flip(-1), -torch.inf)
    rest = _rest(logits_BN, candidates_BK)[..., None, None].expand(*drawn_BK.shape, 1)
    left = torch.cat([rest, others], dim=-1).logcumsumexp(-1)
    # -log(1 - p) in each place; the place at which the candidate itself was drawn stands there twice.
    failed = softplus(drawn_BK.unsqueeze(-1) - left)
    twice = torch.cat([torch.zeros_like(itself[:, :1]), itself.flip(-1)], dim=-1)
    missed = -failed.masked_fill(twice, 0.0).sum(-1)  # log prod_k (1 - p_k)
    return _log1mexp(missed)


def candidate_gradient(
    logits_BN: Tensor,
    candidates_BK: Tensor,
    rewards_BK: Tensor,
    *,
    credit: Credit = "inclusion",
    reduction: Reduction = "mean",
) -> Tensor:
    """A policy gradient for a student that draws candidates, by what they brought: minimise it.

    * ``credit="set"``, the vanilla one: the sum of the rewards counts for the set as it was drawn, ``-(sum_k
      r_k) log P(candidates)``. Its gradient is an unbiased estimate of that of the mean reward, whatever that
      depends on. Each draw of the set gets the whole reward, and the variance grows with K.
    * ``credit="inclusion"``: each reward counts for its candidate's being in the set, whoever the others are,
      ``-sum_k r_k log(1 - prod_k (1 - p_k))`` (``inclusion_log_probs``). Where a candidate's reward depends
      on its being in the set alone, the gradient by its own logit is unbiased. What a logit does to the
      chances of *other* candidates counts for the order that was drawn only, which leaves out how it changes
      that order; and so does what a candidate takes away from others: their rewards, where one of a set is
      shown. That is the price of the smaller variance.

    The candidates have to be drawn from these very logits (``draw_candidates``): ask for labels of what was
    drawn (``LabelRequests``), and take the step before drawing more.

    Args:
        logits_BN: float [B, N], or any leading dimensions: of the student as it is now; -inf for items that
            may not be drawn.
        candidates_BK: integers [B, K]: different items, in the order in which they were drawn.
        rewards_BK: float [B, K]: what each candidate brought: 0 for those that nobody was shown, less a
            baseline if there is one.
        credit: what a reward counts for.
        reduction: ``"mean"`` over the sets, ``"sum"``, or ``"none"``.

    Returns:
        Scalar, or [B] with ``"none"``; float32, or float64 where an input is float64. Its value means
        nothing, its gradient does.

    Raises:
        InputError: shapes, dtypes or devices do not fit; on the CPU also: an item is none of N, or twice in a
            set, or may not be drawn.
        ConfigError: ``credit`` or ``reduction`` is unknown.
    """
    loss = "candidate_gradient"
    check_reduction(loss, reduction)
    if credit not in _CREDITS:
        raise ConfigError(f"losses.{loss}: credit={credit!r} is unknown: use one of {_CREDITS}")
    candidates_BK = _checked(loss, logits_BN, candidates_BK)
    if not isinstance(rewards_BK, Tensor) or not rewards_BK.is_floating_point():
        found = rewards_BK.dtype if isinstance(rewards_BK, Tensor) else type(rewards_BK).__name__
        raise InputError(f"losses.{loss}: rewards are {found}: they must be a tensor of floats")
    if rewards_BK.shape != candidates_BK.shape or rewards_BK.device != logits_BN.device:
        raise InputError(
            f"losses.{loss}: there are rewards of shape {list(rewards_BK.shape)} on {rewards_BK.device} for "
            f"candidates of shape {list(candidates_BK.shape)} on {logits_BN.device}: one for each"
        )
    logits_BN = _computed(logits_BN.double() if rewards_BK.dtype == torch.float64 else logits_BN)
    rewards_BK = rewards_BK.detach().to(logits_BN.dtype)
    if credit == "set":
        each_B = -rewards_BK.sum(-1) * _set_log_prob(logits_BN, candidates_BK)
    else:
        each_B = -(rewards_BK * inclusion_log_probs(logits_BN, candidates_BK)).sum(-1)
    return reduce(each_B, reduction)


def _set_log_prob(logits_BN: Tensor, candidates_BK: Tensor) -> Tensor:
    """[B]: of the candidates in their order."""
    drawn_BK = logits_BN.gather(-1, candidates_BK)
    backwards = drawn_BK.flip(-1)
    if drawn_BK.shape[-1] == logits_BN.shape[-1]:
        left = backwards.logcumsumexp(-1)
    else:
        rest = _rest(logits_BN, candidates_BK).unsqueeze(-1)
        left = torch.cat([rest, backwards], dim=-1).logcumsumexp(-1)[..., 1:]
    return (backwards - left).sum(-1)


def _rest(logits_BN: Tensor, candidates_BK: Tensor) -> Tensor:
    """[B]: log of the weight of all items that were not drawn, of which there are some."""
    return logits_BN.scatter(-1, candidates_BK, -torch.inf).logsumexp(-1)


def _log1mexp(value: Tensor) -> Tensor:
    """``log(1 - exp(value))`` of values below 0, as exact where they are small as where they are large."""
    value = value.clamp(max=-torch.finfo(value.dtype).tiny)
    near = value > -0.6931471805599453
    small = value.masked_fill(~near, -1.0)
    large = value.masked_fill(near, -1.0)
    return torch.where(near, (-small.expm1()).log(), (-large.exp()).log1p())


def _computed(logits: Tensor) -> Tensor:
    """In the dtype to compute in, and finite where they are -inf."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide.clamp(min=torch.finfo(wide.dtype).min * _NEVER)


def _check_logits(loss: str, logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        found = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"losses.{loss}: the logits are {found}: they must be a tensor of floats")
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise InputError(f"losses.{loss}: logits of shape {list(logits.shape)} have no items")


def _check_size(loss: str, count: int, items: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= items:
        raise InputError(
            f"losses.{loss}: a set of {count!r} candidates cannot be drawn from {items:,} items without "
            f"replacement: use 1 to {items:,}"
        )


def _check_drawable(logits: Tensor, count: int) -> None:
    """Where that waits for no device."""
    if not logits.is_cpu:
        return
    fewest = int((logits > -torch.inf).sum(-1).min()) if logits.numel() else count
    if bool(logits.isnan().any()):
        found = logits.isnan().nonzero()
        raise InputError(
            f"losses.draw_candidates: the logit at position {found[0].tolist()} is NaN (so are "
            f"{len(found):,} of {logits.numel():,}): no set can be drawn by such. Look at what the student "
            "was trained on last, or lower its learning rate"
        )
    if fewest < count:
        at = ((logits > -torch.inf).sum(-1) == fewest).nonzero()[0].tolist()
        raise InputError(
            f"losses.draw_candidates: a set of {count} candidates cannot be drawn from {_list(at)}: {fewest} "
            f"of its {logits.shape[-1]:,} items have a logit above -inf. Draw fewer, or let more be drawn"
        )


def _checked(loss: str, logits: Tensor, candidates: Tensor) -> Tensor:
    """The candidates, int64, if they can have been drawn by such logits."""
    _check_logits(loss, logits)
    if not isinstance(candidates, Tensor) or candidates.is_floating_point() or candidates.is_complex():
        found = candidates.dtype if isinstance(candidates, Tensor) else type(candidates).__name__
        raise InputError(f"losses.{loss}: candidates are {found}: they must be a tensor of integers")
    if candidates.dtype == torch.bool or candidates.ndim != logits.ndim:
        raise InputError(
            f"losses.{loss}: candidates of {candidates.dtype} and shape {list(candidates.shape)} for logits "
            f"of shape {list(logits.shape)}: the numbers of K items for each list"
        )
    if candidates.shape[:-1] != logits.shape[:-1] or candidates.device != logits.device:
        raise InputError(
            f"losses.{loss}: candidates have shape {list(candidates.shape)} on {candidates.device}, logits "
            f"{list(logits.shape)} on {logits.device}: they must agree but in the last dimension"
        )
    _check_size(loss, candidates.shape[-1], logits.shape[-1])
    advice = "Pass what draw_candidates drew from these logits"
    check_ids(loss, "candidate", candidates, logits.shape[-1], None, among="of the {} items", advice=advice)
    candidates = candidates.to(torch.int64)
    if candidates.is_cpu:
        _check_drawn(loss, logits, candidates)
    return candidates


def _list(at: list[int]) -> str:
    return f"list {at}" if at else "the list"


def _check_drawn(loss: str, logits: Tensor, candidates: Tensor) -> None:
    ordered = candidates.sort(-1).values
    twice = ordered[..., 1:] == ordered[..., :-1]
    if bool(twice.any()):
        at = twice.nonzero()[0].tolist()
        raise InputError(
            f"losses.{loss}: item {int(ordered[tuple(at)])} is twice among the candidates of "
            f"{_list(at[:-1])}: they are drawn without replacement"
        )
    never = logits.detach().gather(-1, candidates) == -torch.inf
    if bool(never.any()):
        at = never.nonzero()[0].tolist()
        raise InputError(
            f"losses.{loss}: candidate {int(candidates[tuple(at)])} at position {at} has a logit of -inf, so "
            "nobody can have drawn it. Pass the logits from which candidates were drawn"
        )
