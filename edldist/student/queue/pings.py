"""Pings on their way to one worker, and what its answers say was lost on a broken connection.

Messages keep their order. So whatever this side had sent before a ping, and is not in the view that the
answer carries, never arrived; or its answer went lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from edldist.wire.messages import Pong

__all__ = ["Missing", "Pings"]

_MOST = 64  # on their way to a worker that is far away


@dataclass(frozen=True, slots=True)
class _Sent:
    """What this side knew of a worker when it sent it a ping."""

    seq: int
    leases: frozenset[int]
    pulled: int
    awake: bool


class Missing(NamedTuple):
    """What an answer lacks.

    Attributes:
        leases: that the worker was given, and neither holds nor has answered.
        pull: number of a pull that never came, or whose answer never arrived; 0: none.
        wake: whether the worker sleeps although it was woken.
    """

    leases: frozenset[int]
    pull: int
    wake: bool


class Pings:
    """Pings to one worker, not answered yet. Pure; owned by the I/O thread."""

    __slots__ = ("_sent", "_seq")

    def __init__(self) -> None:
        self._seq = 0
        self._sent: deque[_Sent] = deque(maxlen=_MOST)

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return (ping.seq for ping in self._sent)

    def send(self, leases: frozenset[int], pulled: int, awake: bool) -> int:
        """Note a ping that is about to be sent, and number it.

        Args:
            leases: that the worker has been given and not answered.
            pulled: number of its last pull, which was answered at once.
            awake: whether it is not waiting to be woken, as far as this side knows.
        """
        self._seq += 1
        self._sent.append(_Sent(self._seq, leases, pulled, awake))
        return self._seq

    def answered(self, pong: Pong, pulled: int) -> Missing | None:
        """Compare an answer with what was known when its ping left.

        Args:
            pulled: number of the worker's last pull by now.

        Returns:
            What the worker lacks, of which the leases may have been answered since; None if this answers no
            ping that is under way.
        """
        while self._sent and self._sent[0].seq < pong.seq:
            self._sent.popleft()
        if not self._sent or self._sent[0].seq != pong.seq:
            return None
        ping = self._sent.popleft()
        unanswered = pong.pulled > pulled or (pong.pulled and pong.pulled == ping.pulled)
        return Missing(
            leases=ping.leases.difference(pong.held),
            pull=pong.pulled if unanswered else 0,
            wake=pong.asleep and ping.awake,
        )
