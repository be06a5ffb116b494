"""Children of one kind, and who starts them again."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from edldist_launch.contract.backend import Phase, ProcessState
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.last_words import own_error
from edldist_launch.process.exits import was_asked
from edldist_launch.process.restarts import RestartPolicy

__all__ = ["Change", "Fleet", "Settled"]

logger = logging.getLogger(__name__)

Settled = Literal["stopped", "hopeless"]


@dataclass(frozen=True)
class Change:
    """Something that happened to a supervised child.

    Attributes:
        name: of its slot, the same for every start.
        code: with which it ended.
        retry_s: time until it is started again.
        starts: how often it was started so far.
    """

    event: Literal["started", "restarted", "crashed", "stopped", "hopeless", "removed"]
    child: Child
    name: str
    code: int = 0
    retry_s: float = 0.0
    starts: int = 1


class Fleet:
    """Children of one kind that are restarted when they crash.

    Slots come (``add``) and go (``drain``) while it runs. One that drains is asked to leave, is killed when
    its grace is over, and is never started again, however it ends::

                     crash                    due
        running ----------------> waiting ---------> running
           |   |                     |
           |   +-- exit 0, hopeless --> settled
           |                         |     |
           | drain                   | drain
           v                         v     v
        leaving -- ended, killed --> removed

    Owned by the main thread; ``tick`` is called a few times a second. It keeps nothing across
    launcher restarts: the children would have ended with the launcher.

    Args:
        make: builds slot ``name`` for the ``attempt``-th time (from 0).
        names: one for each slot.
        keep: start children again even when they left with exit code 0.
        final: exit codes that are an answer, not a crash.
        unready_starts: how many starts a child has to be ready for the first time; None for any number.
        serve: whether they work for others, as long as they are asked to: one that left in order has done all
            that there was for it to do.
    """

    def __init__(
        self,
        make: Callable[[str, int], Child],
        names: Sequence[str],
        keep: bool = False,
        final: Collection[int] = (),
        unready_starts: int | None = None,
        serve: bool = False,
    ) -> None:
        self._make = make
        self._serve = serve
        self._policy = partial(RestartPolicy, keep, final, unready_starts)
        self._slots = {name: _Slot(self._policy(), serves=serve) for name in names}

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    @property
    def staying(self) -> list[str]:
        """The slots that nobody asked to leave, the oldest first; those that have settled, too."""
        return [name for name, slot in self._slots.items() if slot.kill_at is None]

    def settled_as(self, name: str) -> Settled | None:
        """How a slot has settled: stopped or hopeless; None unless it has."""
        return self._slots[name].settled

    def id_of(self, name: str) -> str:
        """What the latest child of a slot is called; empty before its start."""
        child = self._slots[name].child
        return "" if child is None else child.id

    @property
    def processes(self) -> dict[str, ProcessState]:
        """Every slot as the launch contract tells it, by its name; those never started are left out."""
        here = socket.gethostname()
        return {
            name: ProcessState(
                slot.child.id, str(slot.child.pid), slot.phase, here, slot.reason, restarts=slot.attempts - 1
            )
            for name, slot in self._slots.items()
            if slot.child is not None
        }

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
        return all(slot.settled is not None for slot in self._slots.values())

    def start(self, now: float) -> list[Change]:
        """Start every slot for the first time."""
        return [self._start(name, slot, now) for name, slot in self._slots.items()]

    def add(self, name: str, now: float) -> Change:
        """Start a slot that is not there yet."""
        if name in self._slots:
            raise RuntimeError(f"slot {name} is there already")
        slot = self._slots[name] = _Slot(self._policy(), serves=self._serve)
        return self._start(name, slot, now)

    def forget(self, name: str) -> None:
        """A slot that has settled is of no interest any more."""
        if self._slots[name].settled is None:
            raise RuntimeError(f"slot {name} has not settled: drain it")
        del self._slots[name]

    def drain(self, name: str, now: float, grace_s: float) -> None:
        """Ask a slot's child to leave; ``tick`` reports it as removed once it is gone.

        Args:
            grace_s: after which it is killed.
        """
        slot = self._slots[name]
        if slot.kill_at is not None:
            return
        slot.kill_at = now + grace_s
        if slot.child is not None:
            slot.child.signal(signal.SIGTERM)

    def seen(self, ids: Iterable[str]) -> None:
        """These children joined the job."""
        known = set(ids)
        for slot in self._slots.values():
            if slot.child is not None and slot.child.id in known:
                slot.policy.ready()

    def tick(self, now: float) -> list[Change]:
        """Look after every slot; restart what is due."""
        changes = []
        for name, slot in list(self._slots.items()):
            child = slot.child
            if slot.kill_at is not None:
                if (removed := self._see_off(name, slot, now)) is not None:
                    changes.append(removed)
                continue
            if slot.policy.restart_at is not None:
                if now >= slot.policy.restart_at:
                    changes.append(self._start(name, slot, now))
                continue
            if child is None or slot.settled is not None or (code := child.poll()) is None:
                continue
            slot.said = own_error(child.output()) if code else ""
            verdict = slot.policy.exited(code, now)
            if verdict == "restart" and slot.policy.restart_at is not None:
                changes.append(Change("crashed", child, name, code, slot.policy.restart_at - now))
                continue
            slot.settled = "stopped" if verdict == "stopped" else "hopeless"
            changes.append(Change(slot.settled, child, name, code, starts=slot.attempts))
        return changes

    def _see_off(self, name: str, slot: _Slot, now: float) -> Change | None:
        """Look after a slot that drains; the change once it is gone."""
        child = slot.child
        if child is None:
            raise RuntimeError(f"slot {name} was never started")
        if child.running:
            if slot.kill_at is None or now < slot.kill_at:
                return None
            logger.warning("%s did not leave in time when it was told to: killed", child.id)
            child.kill()
        del self._slots[name]
        return Change("removed", child, name, child.poll() or 0, starts=slot.attempts)

    def _start(self, name: str, slot: _Slot, now: float) -> Change:
        slot.child = self._make(name, slot.attempts)
        slot.child.start()
        slot.said = ""
        slot.policy.started(now)
        slot.attempts += 1
        return Change("started" if slot.attempts == 1 else "restarted", slot.child, name)


@dataclass
class _Slot:
    policy: RestartPolicy
    child: Child | None = None
    attempts: int = 0
    settled: Settled | None = None
    kill_at: float | None = None  # monotonic seconds; None unless it drains
    serves: bool = False
    said: str = ""  # the last error of a child that has ended by one

    @property
    def phase(self) -> Phase:
        if self.settled is not None:
            return "succeeded" if self.settled == "stopped" else "failed"
        if self.policy.restart_at is not None:
            return "pending"
        code = None if self.child is None else self.child.poll()
        if code is None:
            return "running" if self.kill_at is None else "leaving"
        return "succeeded" if self._done(code) else "failed"

    @property
    def reason(self) -> str:
        """What ended it, with its own words, unless it runs or came to its end."""
        code = None if self.child is None else self.child.poll()
        if code is None or self._done(code):
            return ""
        return ": ".join(filter(None, (describe_exit(code), self.said)))

    def _done(self, code: int) -> bool:
        """Whether a child that ended with this code has done its work."""
        return code == 0 or (self.serves and was_asked(code))
