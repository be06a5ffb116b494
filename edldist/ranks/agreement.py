"""Agreement among student ranks on what each of them did: a step succeeds on all, or fails on all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from edldist.errors import CheckpointError
from edldist.ranks.placement import Placement, in_process_group, placement

__all__ = ["RankFailedError", "Ranks"]


class RankFailedError(CheckpointError):
    """A step failed on at least one rank; raised on every rank with the same message.

    Attributes:
        verdict: what all ranks have to do about it, where the error of one has such a thing to say; else
            empty.
    """

    verdict = ""


class Ranks:
    """The ranks of the default process group, over a gloo group of their own.

    The own group keeps a background thread's collectives apart from those of training. Every method is a
    collective: all ranks call the same ones in the same order, from one thread at a time. Only JSON
    travels. Without a process group this is a group of one.
    """

    def __init__(self) -> None:
        here = placement() if in_process_group() else Placement(0, 1, "")
        self.rank = here.rank
        self.world_size = here.world_size
        self.group: Any = None if here.world_size == 1 else _gloo_group()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's JSON value, by rank."""
        if self.group is None:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64, device="cpu") for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([data.numel()], device="cpu"), group=self.group)
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device="cpu")
        padded[: data.numel()] = data
        parts = [torch.empty(longest, dtype=torch.uint8, device="cpu") for _ in range(self.world_size)]
        dist.all_gather(parts, padded, group=self.group)
        return [
            json.loads(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)
        ]

    def each(self, work: Callable[[], Any]) -> list[Any]:
        """Run `work` on every rank; return every rank's JSON result.

        Raises:
            RankFailedError: it raised on some rank; names the ranks and their errors.
        """
        cause: Exception | None = None
        try:
            outcome = {"value": work()}
        except Exception as exc:  # told to the others first, then raised below on all of them
            cause = exc
            outcome = {
                "error": describe(exc),
                "final": getattr(exc, "final", False),
                "verdict": getattr(exc, "verdict", ""),
            }
        outcomes = self.gather(outcome)
        failed: dict[str, list[str]] = {}
        for rank, outcome in enumerate(outcomes):
            if "error" in outcome:
                failed.setdefault(outcome["error"], []).append(str(rank))
        if failed:
            told = "; ".join(f"rank {', '.join(ranks)}: {error}" for error, ranks in failed.items())
            if len(failed) == 1 and len(next(iter(failed.values()))) == self.world_size:
                told = next(iter(failed))
            failure = RankFailedError(told)
            failure.final = all(outcome.get("final", True) for outcome in outcomes)
            failure.verdict = max(outcome.get("verdict", "") for outcome in outcomes)
            raise failure from cause
        return [o["value"] for o in outcomes]

    def lead(self, work: Callable[[], Any]) -> Any:
        """Run `work` on rank 0 only; return its JSON result on every rank.

        Raises:
            RankFailedError: it raised.
        """
        return self.each(work if self.rank == 0 else lambda: None)[0]

    def leave(self) -> None:
        """Give the group back; not a collective."""
        if self.group is not None and in_process_group():
            dist.destroy_process_group(self.group)
        self.group = None


def _gloo_group() -> Any:
    """All ranks, with the time-out of gloo's operations in the default group, or torch's."""
    group: Any = dist.group.WORLD
    name = dist.get_backend()
    if "gloo" in name and name != "gloo":  # edldist.live's, which has to hear of a change here, too
        return dist.new_group(backend=name, timeout=group.timeout)
    with contextlib.suppress(AttributeError, RuntimeError):  # a group without gloo
        return dist.new_group(
            backend="gloo", timeout=group._get_backend(torch.device("cpu")).options._timeout
        )
    return dist.new_group(backend="gloo")


def describe(exc: BaseException) -> str:
    """An error in one line; our own errors speak for themselves."""
    if isinstance(exc, CheckpointError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}"
