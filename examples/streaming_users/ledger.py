"""What the loop has learnt from, arrival by arrival, and which versions of the teacher had labelled it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.errors import LabelError

__all__ = ["Ledger"]


class Ledger:
    """Keeps count of a stream. In the checkpoint's state, so that it forgets what a restored model has
    forgotten.

    Args:
        batch: arrivals of one step, over all ranks.
        rank, ranks: which part of each step is counted here.
        versions: how many of the teacher's newest versions may label at a time.

    Attributes:
        lost, repeated: arrivals that were left out, and that came again, on this rank.
        newest: the newest version that has labelled anything here.
    """

    def __init__(self, batch: int, rank: int = 0, ranks: int = 1, versions: int = 2) -> None:
        self._batch, self._part, self._versions = batch, batch // ranks, versions
        self._first = rank * self._part
        self._expected = self._first  # Invariant: the arrival with which this rank's next step begins
        self.lost = self.repeated = self.newest = 0

    def count(self, arrivals: Tensor, versions: Tensor, nights: Tensor) -> None:
        """The loop takes a step.

        Args:
            arrivals: int64 [B], who they are.
            versions: int64 [B], of the teacher, whose labels they have.
            nights: int64 [B], what the weights themselves say: the night on which they were learnt. The first
                version is that of night 0.

        Raises:
            LabelError: the labels are not of the version that they say, or of one that is too old.
        """
        if not torch.equal(versions, nights + 1):
            raise LabelError(
                f"labels of arrival {int(arrivals[0])} and after it say that they are of versions "
                f"{sorted(set(versions.tolist()))}, and were computed by the weights of nights "
                f"{sorted(set(nights.tolist()))}: version 1 is night 0, and so on"
            )
        oldest = int(versions.min())
        if oldest <= self.newest - self._versions:
            raise LabelError(
                f"labels of arrival {int(arrivals[0])} and after it are of version {oldest}, though version "
                f"{self.newest} has labelled before, and the newest {self._versions} may label at a time"
            )
        self.newest = max(self.newest, int(versions.max()))
        expected = set(range(self._expected, self._expected + self._part))
        here = arrivals.tolist()
        self.repeated += sum(arrival < self._expected for arrival in here) + len(here) - len(set(here))
        self.lost += len(expected - set(here))
        self._expected += self._batch

    def totals(self) -> dict[str, int]:
        """Over all ranks, which call this together: how many arrivals are ``lost`` and ``repeated``, and the
        ``newest_version`` that has labelled any."""
        counts, newest = torch.tensor([self.lost, self.repeated]), torch.tensor(self.newest)
        if dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(newest, dist.ReduceOp.MAX)
        return {"lost": int(counts[0]), "repeated": int(counts[1]), "newest_version": int(newest)}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """All of it is each rank's own."""

    def rank_state_dict(self) -> dict[str, int]:
        return {
            "expected": self._expected,
            "lost": self.lost,
            "repeated": self.repeated,
            "newest": self.newest,
        }

    def load_rank_state_dict(self, state: Mapping[str, int] | None) -> None:
        """None where other ranks saved: the stream itself refuses to go on then."""
        if state is not None:
            self._expected, self.lost = state["expected"], state["lost"]
            self.repeated, self.newest = state["repeated"], state["newest"]
