"""Labels that are no plain tensors: what a codec decodes to, and what the losses take.

Shape legend: V entries of the vocabulary (classes), K kept of them, N drawn, G asked for, D features of a
hidden state, ``...`` any leading dimensions, the samples (or the packed rows of sequences) first.

All probabilities are those of ``softmax(logits / temperature)`` of the teacher. None needs a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from edldist.errors import LabelError
from edldist.labels.head import head_digest

__all__ = ["GatheredLabels", "HiddenLabels", "Labels", "SampledLabels", "TopKLabels"]


@dataclass(frozen=True, slots=True, eq=False)
class TopKLabels:
    """The most probable entries, and how much all others have together.

    Attributes:
        ids: int64 [..., K], the most probable first.
        log_probs: float32 [..., K], falling; ``-inf`` where an entry is left out, as ``topp`` may.
        log_tail: float32 [...], log of the probability of all entries that are not kept; ``-inf`` for none.
        vocabulary: V.
        temperature: T.
    """

    ids: Tensor
    log_probs: Tensor
    log_tail: Tensor
    vocabulary: int
    temperature: float = 1.0

    def dense(self) -> Tensor:
        """Log-probabilities, float32 [..., V], the tail spread evenly over all others."""
        present = ~self.log_probs.isneginf()
        others = (self.vocabulary - present.sum(dim=-1)).clamp(min=1)
        each = (self.log_tail - others.log()).unsqueeze(-1)
        whole = each.expand(*self.ids.shape[:-1], self.vocabulary)
        return whole.scatter(-1, self.ids, torch.where(present, self.log_probs, each))


@dataclass(frozen=True, slots=True, eq=False)
class SampledLabels:
    """Entries that stand for the whole distribution: on average over draws, each counts by its probability.

    Attributes:
        ids: int64 [..., H + N]: H of which the probability is known, then N drawn ones, which may repeat.
        probs: float32 [..., H + N], by which each counts; they sum to 1.
        exact: H.
        vocabulary: V.
        temperature: T.
    """

    ids: Tensor
    probs: Tensor
    exact: int
    vocabulary: int
    temperature: float = 1.0

    def dense(self) -> Tensor:
        """The estimated probabilities, float32 [..., V], most of them 0. Unbiased."""
        whole = self.probs.new_zeros(*self.ids.shape[:-1], self.vocabulary)
        return whole.scatter_add(-1, self.ids, self.probs)


@dataclass(frozen=True, slots=True, eq=False)
class GatheredLabels:
    """What the teacher gives the entries that the student asked for.

    Attributes:
        log_probs: float32 [..., G], in the order in which they were asked for.
        log_outside: float32 [...], log of the probability of all others; ``-inf`` for none.
        temperature: T.
    """

    log_probs: Tensor
    log_outside: Tensor
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class HiddenLabels:
    """The teacher's last hidden state, to which its head is applied where it is needed, a part at a time.

    Attributes:
        hidden: bf16 [..., D], after the final norm.
        head: digest of the teacher's head (``edldist.labels.head.head_digest``).
    """

    hidden: Tensor
    head: str

    def logits(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """All of the teacher's logits, float32 [..., V]; the losses make a part at a time instead.

        Args:
            weight: float [V, D] of the teacher's head.
            bias: float [V], or None.

        Raises:
            LabelError: the head does not fit the hidden states, or is another model's.
        """
        if weight.ndim != 2 or weight.shape[1] != self.hidden.shape[-1]:
            raise LabelError(
                f"a head of shape {list(weight.shape)} cannot be applied to hidden states of "
                f"{self.hidden.shape[-1]}: it must be [vocabulary, {self.hidden.shape[-1]}]"
            )
        if (digest := head_digest(weight, bias)) != self.head:
            raise LabelError(f"a head of digest {digest} is not that of the teacher, {self.head}")
        return F.linear(self.hidden.float(), weight.float(), None if bias is None else bias.float())


Labels: TypeAlias = Tensor | TopKLabels | SampledLabels | GatheredLabels | HiddenLabels
"""What a codec makes of an output: a tensor of logits, or one of the above."""
