"""Children of one kind, and who starts them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from edldist_launch.local.child import Child
from edldist_launch.process.restarts import RestartPolicy

__all__ = ["Change", "Fleet"]


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
