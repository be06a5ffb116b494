"""Distillation losses: pure functions of the student's outputs and the teacher's labels.

All of them compute in float32, or in float64 where an input is float64, so that half-precision labels lose
nothing further on the way. They are differentiable in the student only (the teacher's side is detached),
never wait for the device, and give 0 for an empty batch under ``"mean"``.

A ``mask`` of positions leaves out padding: where it is false, nothing that either side or the target holds
counts, NaN included, and no gradient flows. ``"mean"`` then averages over the true positions of this rank, or
divides by ``count``, where ranks have different numbers of them (``mean_count``). If there are none the loss
is 0.

What a teacher says of classes or tokens may come as a tensor of logits, or as any of the typed labels that a
codec decodes to (``edldist.labels.typed``). Which loss can be had of which labels:

==================== ====== ================ =========== =========== ======
loss                 logits ``topk, topp``   ``rs``      ``gather``  hidden
==================== ====== ================ =========== =========== ======
kd, forward_kl       exact  of K + 1 classes unbiased    --          exact
reverse_kl           exact  of K + 1 classes --          --          exact
jensen_shannon       exact  of K + 1 classes beta = 0    --          exact
skewed_kl            exact  of K + 1 classes --          --          exact
residual_to_gold     --     as published     --          --          --
policy_gradient      exact  --               --          exact       exact
==================== ====== ================ =========== =========== ======

``rs`` is for ``rs`` and ``head+rs``. *Of K + 1 classes*: all entries that are not kept count as one, by their
joint probability on either side. That is a divergence too (0 only where the two agree on the K entries and on
the rest as a whole), never more than the one over all entries. A combination that would be biased is refused,
and the error says why.

The wide ones are computed a few rows at a time and once more on the way back, so that no softmax of all rows
is ever in memory, of either side; a ``Projection`` leaves even the student's logits to be made that way.

``uld`` and ``span_likelihood`` are for teachers with another tokenizer (``cross_tokenizer``).

``candidate_gradient`` is for students that draw sets of candidates (``candidates``).

``ranking`` (of whole lists), ``pairwise`` (of pairs of their items) and ``contrastive`` (one right candidate
among many, false negatives left out) are for scores; ``gather_rows`` gives a rank the candidates of all
ranks.

``ensemble`` puts the loss against each of several teachers together, by their weights.
"""

from __future__ import annotations

from edldist.losses.blend import kd
from edldist.losses.candidates import candidate_gradient, draw_candidates, inclusion_log_probs
from edldist.losses.contrastive import contrastive
from edldist.losses.cross_tokenizer import span_likelihood, uld
from edldist.losses.divergences import forward_kl, jensen_shannon, reverse_kl, skewed_kl
from edldist.losses.features import cosine, mse
from edldist.losses.gathering import GatheredRows, gather_rows
from edldist.losses.pairwise import pairwise
from edldist.losses.projection import Head, Projection
from edldist.losses.ranking import ranking
from edldist.losses.reduction import Reduction, mean_count
from edldist.losses.sampled_tokens import policy_gradient
from edldist.losses.truncated import residual_to_gold
from edldist.losses.weighted import ensemble

__all__ = [
    "GatheredRows",
    "Head",
    "Projection",
    "Reduction",
    "candidate_gradient",
    "contrastive",
    "cosine",
    "draw_candidates",
    "ensemble",
    "forward_kl",
    "gather_rows",
    "inclusion_log_probs",
    "jensen_shannon",
    "kd",
    "mean_count",
    "mse",
    "pairwise",
    "policy_gradient",
    "ranking",
    "residual_to_gold",
    "reverse_kl",
    "skewed_kl",
    "span_likelihood",
    "uld",
]
