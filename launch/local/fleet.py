"""Children of one kind: when to start them again (pure), and who does so (thin)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edldist_launch.local.child import Child

__all__ = ["Change", "Fleet", "RestartPolicy", "Verdict"]

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_S = 60.0
EXIT_UNUSABLE = 2

Verdict = Literal["restart", "stopped", "hopeless"]


class RestartPolicy:
    """Decides about one child that ended, from its exit code and the time. Pure.

    A crash is answered by a restart after 0.5 s, doubled with each crash up to 30 s, and again
    0.5 s after 60 s of health. Exit 0 means that it was asked to leave. Exit 2 of a child that
    was never ready means that it cannot work at all (wrong options, a model that does not load):
    restarting would only repeat it. So does a crash, by a signal too, that comes before it was ready in each
    of the first ``unready_starts`` starts.

    Args:
        keep: start it again after exit 0 too.
        final: exit codes that are an answer of its own, never worth a restart.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
    """

    def __init__(
        self, keep: bool = False, final: Collection[int] = (), unready_starts: int | None = None
    ) -> None:
        self._keep = keep
        self._final = frozenset(final)
        self._unready_starts = unready_starts
        self._starts = 0
        self._delay_s = BACKOFF_MIN_S
        self._started_at = 0.0
        self._ever_ready = False
        self.restart_at: float | None = None

    def started(self, now: float) -> None:
        """The child runs from now on."""
        self._started_at = now
        self._starts += 1
        self.restart_at = None

    def ready(self) -> None:
        """The child did its work at least once (a teacher worker joined)."""
        self._ever_ready = True

    def exited(self, code: int, now: float) -> Verdict:
        """The child ended; with ``restart``, ``restart_at`` says when to start it again."""
        if code == 0 and not self._keep:
            return "stopped"
        if code in self._final or (code == EXIT_UNUSABLE and not self._ever_ready):
            return "hopeless"
        if not self._ever_ready and self._starts == self._unready_starts:
            return "hopeless"
        if now - self._started_at >= HEALTHY_S:
            self._delay_s = BACKOFF_MIN_S
        self.restart_at = now + self._delay_s
        self._delay_s = min(BACKOFF_MAX_S, 2 * self._delay_s)
        return "restart"


@dataclass(frozen=True)
class Change:
    """Something that happened to a supervised child.

    Attributes:
        name: of its slot, the same for every start.
        code: with which it ended.
        retry_s: time until it is started again.
        starts: how often it was started so far.
    """

    event: Literal["started", "restarted", "crashed", "stopped", "hopeless"]
    child: Child
    name: str
    code: int = 0
    retry_s: float = 0.0
    starts: int = 1


class Fleet:
    """Children of one kind that are restarted when they crash.

    Owned by the main thread; ``tick`` is called a few times a second. It keeps nothing across
    launcher restarts: the children would have ended with the launcher.

    Args:
        make: builds slot ``name`` for the ``attempt``-th time (from 0).
        names: one for each slot.
        keep: start children again even when they left with exit code 0.
        final: exit codes that are an answer, not a crash.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
    """

    def __init__(
        self,
        make: Callable[[str, int], Child],
        names: Sequence[str],
        keep: bool = False,
        final: Collection[int] = (),
        unready_starts: int | None = None,
    ) -> None:
        self._make = make
        self._slots = {name: _Slot(RestartPolicy(keep, final, unready_starts)) for name in names}

    @property
    def children(self) -> list[Child]:
        """The latest child of every slot that was ever started."""
        return [slot.child for slot in self._slots.values() if slot.child is not None]

    @property
    def running(self) -> int:
        return sum(child.running for child in self.children)

    @property
    def pending(self) -> int:
        """Slots that wait for their restart."""
        return sum(slot.policy.restart_at is not None for slot in self._slots.values())

    @property
    def settled(self) -> bool:
        """Whether every slot was started, ended, and will not be started again."""
        return all(slot.settled for slot in self._slots.values())

    def start(self, now: float) -> list[Change]:
        """Start every slot for the first time."""
        return [self._start(name, slot, now) for name, slot in self._slots.items()]

    def seen(self, ids: Iterable[str]) -> None:
        """These children joined the job."""
        known = set(ids)
        for slot in self._slots.values():
            if slot.child is not None and slot.child.id in known:
                slot.policy.ready()

    def tick(self, now: float) -> list[Change]:
        """Look after every slot; restart what is due."""
        changes = []
        for name, slot in self._slots.items():
            child = slot.child
            if slot.policy.restart_at is not None:
                if now >= slot.policy.restart_at:
                    changes.append(self._start(name, slot, now))
                continue
            if child is None or slot.settled or (code := child.poll()) is None:
                continue
            verdict = slot.policy.exited(code, now)
            if verdict == "restart" and slot.policy.restart_at is not None:
                changes.append(Change("crashed", child, name, code, slot.policy.restart_at - now))
                continue
            slot.settled = True
            event: Literal["stopped", "hopeless"] = "stopped" if verdict == "stopped" else "hopeless"
            changes.append(Change(event, child, name, code, starts=slot.attempts))
        return changes

    def _start(self, name: str, slot: _Slot, now: float) -> Change:
        slot.child = self._make(name, slot.attempts)
        slot.child.start()
        slot.policy.started(now)
        slot.attempts += 1
        return Change("started" if slot.attempts == 1 else "restarted", slot.child, name)


@dataclass
class _Slot:
    policy: RestartPolicy
    child: Child | None = None
    attempts: int = 0
    settled: bool = False
