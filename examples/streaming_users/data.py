"""Generated users who arrive one after the other, and whose taste drifts from day to day.

Nothing here was collected from anybody. Items have features, of which everybody makes the same few *aspects*
(a fixed random network); a user clicks with probability ``sigmoid(taste . aspects(item) - 1)``. Tastes of one
day scatter around that day's mean, and each day the mean has moved: what is true of items stays, what is true
of users does not.

An arrival is a number. Day 0 is the log from before the stream; then one day follows the other, for ever
(``Calendar``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edldist.errors import CheckpointError, ConfigError

__all__ = ["FEATURES", "HISTORY", "QUERY", "SUPPORT", "Arrivals", "Calendar", "users"]

FEATURES = 10
HISTORY, SUPPORT, QUERY = 64, 8, 16
"""Of a user: items that the teacher knows to be clicked or not, how many of them a student knows, and items
to
be told of."""
ASPECTS, SPREAD, DRIFT = 6, 1.5, 0.6
_WORLD = 1912


def _fixed() -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(_WORLD)
    return chance.normal(size=(FEATURES, 24)) / FEATURES**0.5, chance.normal(size=(24, ASPECTS)) / 24**0.5


_FIRST, _SECOND = _fixed()


@dataclass(frozen=True)
class Calendar:
    """How many arrive on which day.

    Attributes:
        offline: on day 0, the time before the stream.
        per_day: on each day of it.
    """

    offline: int
    per_day: int

    def day_of(self, arrival: int) -> int:
        """The day on which somebody arrives."""
        return 0 if arrival < self.offline else 1 + (arrival - self.offline) // self.per_day

    def night_before(self, arrival: int) -> int:
        """The last night that was over when somebody arrives. Night 0 is: day 0 is a log."""
        return max(0, self.day_of(arrival) - 1)


@functools.lru_cache
def mean_taste(day: int) -> np.ndarray:
    """Float64 [ASPECTS]: each day it has gone the same way again."""
    way = np.random.default_rng(_WORLD + 1).normal(size=ASPECTS)
    start = np.random.default_rng(_WORLD + 2).normal(size=ASPECTS)
    return start / np.linalg.norm(start) + DRIFT * day * way / np.linalg.norm(way)


def user(seed: int, arrival: int, day: int) -> dict[str, np.ndarray]:
    """One user, the same whenever asked for: ``items`` [HISTORY + QUERY, FEATURES] and ``clicks`` of them."""
    chance = np.random.default_rng((seed, arrival))
    taste = mean_taste(day) + SPREAD / ASPECTS**0.5 * chance.normal(size=ASPECTS)
    items = chance.normal(size=(HISTORY + QUERY, FEATURES))
    aspects = 2 * np.tanh(items @ _FIRST * 1.5) @ _SECOND
    likely = 1 / (1 + np.exp(1.0 - aspects @ taste))
    clicks = chance.random(HISTORY + QUERY) < likely
    return {"items": items.astype(np.float32), "clicks": clicks.astype(np.float32)}


def users(seed: int, arrivals: range, days: Calendar | int) -> dict[str, Tensor]:
    """Users as one batch.

    ``arrival`` int64 [B]; ``items`` float32 [B, HISTORY, FEATURES] with ``clicks`` float32 [B, HISTORY], 0 or
    1; ``query`` float32 [B, QUERY, FEATURES], and ``query_clicks``, which nobody knows when the user arrives.

    Args:
        days: when they arrive: all on one day, or as their numbers say.
    """
    found = [
        user(seed, arrival, days.day_of(arrival) if isinstance(days, Calendar) else days)
        for arrival in arrivals
    ]
    items = torch.from_numpy(np.stack([each["items"] for each in found]))
    clicks = torch.from_numpy(np.stack([each["clicks"] for each in found]))
    return {
        "arrival": torch.tensor(arrivals),
        "items": items[:, :HISTORY],
        "clicks": clicks[:, :HISTORY],
        "query": items[:, HISTORY:],
        "query_clicks": clicks[:, HISTORY:],
    }


class Arrivals:
    """The stream: batches of those who have just arrived, without end. It knows where it is.

    Each rank gets an even part of every batch of ``batch`` arrivals. Users come without ``query_clicks``.

    Args:
        limit: the stream breaks off there, as a log does that nobody writes any more; None: never.

    Raises:
        ConfigError: the ranks cannot share a batch evenly.
    """

    def __init__(
        self,
        calendar: Calendar,
        batch: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        limit: int | None = None,
    ) -> None:
        if batch < 1 or batch % ranks:
            raise ConfigError(f"{batch} arrivals a step cannot be shared by {ranks} ranks: use a multiple")
        self._calendar, self._batch, self._seed, self._limit = calendar, batch, seed, limit
        self._part = batch // ranks
        self._first = rank * self._part
        self._next = 0  # Invariant: the number of the first arrival that no rank has been given

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while self._limit is None or self._next + self._batch <= self._limit:
            first = self._next + self._first
            self._next += self._batch
            batch = users(self._seed, range(first, first + self._part), self._calendar)
            del batch["query_clicks"]
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next, "batch": self._batch, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the last batch that was given before the state was taken.

        Raises:
            CheckpointError: it is the state of another stream.
        """
        for name, here in (("batch", self._batch), ("seed", self._seed)):
            if state[name] != here:
                raise CheckpointError(
                    f"the checkpoint is of a stream with {name} {state[name]}, and this one has {here}: "
                    "go on with the arguments of that run"
                )
        self._next = int(state["next"])
