"""Defects put into the code on purpose: what the simulation must be able to find.

Each is one that the code had, or that somebody could make without any other test noticing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from edldist.live.handover import behind_whom
from edldist.student.batch.batch import OpenBatch
from edldist.student.loop.under_way import UnderWay
from edldist.student.queue import task as task_module
from edldist.student.queue.absences import Absences
from edldist.student.queue.batches import Batches
from edldist.student.queue.outcomes import Returned
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.sleepers import Sleepers
from edldist.student.queue.wanted import Wanted
from edldist.student.service.delivery import Delivery
from edldist.student.service.peers import Peers
from edldist.student.service.pinging import Pinging
from edldist.wire import moving
from edldist.wire.enrolment import Enrolment
from edldist.wire.messages import Unknown
from tests.simulation import live as live_module

__all__ = ["DEFECTS", "defect"]


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _ignore_unknown() -> Any:
    take = Enrolment.on_message

    def on_message(self: Enrolment, message: Any, now: float, wall: float) -> bool:
        return False if isinstance(message, Unknown) else take(self, message, now, wall)

    return mock.patch.object(Enrolment, "on_message", on_message)


def _keep_open_batches() -> Any:
    clear = Delivery.clear

    def only_the_queue(self: Delivery) -> None:
        kept = dict(self._open)
        clear(self)
        self._open.update(kept)

    return mock.patch.object(Delivery, "clear", only_the_queue)


def _lose_what_a_drain_gives_back() -> Any:
    def give_back(self: LabelQueue, leases: Any, worker: str, now: float) -> Returned:
        for lease in [lease for lease in leases if lease in self.leases_of(worker)]:
            self._end(lease)
        return Returned(0, [])

    return mock.patch.object(LabelQueue, "give_back", give_back)


def _write_at_the_first_row() -> Any:
    place = OpenBatch.place

    def shifted(
        self: OpenBatch, teacher: str, start: int, stop: int, came: Any, at: int, version: int | None = None
    ) -> int:
        return place(self, teacher, start, stop, came, 0, version)

    return mock.patch.object(OpenBatch, "place", shifted)


def _no_limit_of_frames() -> Any:
    return mock.patch.object(Wanted, "cut_at", lambda self, most: self)


def _deliver_what_is_half_labelled() -> Any:
    settle = Batches.settle

    def early(self: Batches, number: int, samples: int) -> bool:
        batch = self._batches[number]
        return settle(self, number, batch.unlabelled if batch.unlabelled - samples <= 1 else samples)

    return mock.patch.object(Batches, "settle", early)


def _miss_for_good() -> Any:
    look = Absences.look

    def blind(self: Absences, now: float, here: Any) -> Any:
        return look(self, now, set(here) - self.missing)

    return mock.patch.object(Absences, "look", blind)


def _answer_the_oldest() -> Any:
    def collect(self: UnderWay) -> bool:
        batch = self._delivery.deliver()
        request = next((each for each in self._requests if each.answer is None), None)
        if batch is not None and request is not None:
            request.answer = batch
        return batch is not None

    return mock.patch.object(UnderWay, "_collect", collect)


def _keep_what_a_rank_behind_has() -> Any:
    def nobody(stands: Any) -> tuple[int, list[int]]:
        source, behind = behind_whom(stands)
        return source, [rank for rank in behind if stands[rank][0] < 0]

    return mock.patch.object(live_module, "behind_whom", nobody)


DEFECTS: dict[str, Callable[[], Any]] = {
    "what a broken connection swallowed is not made good": lambda: mock.patch.object(
        Pinging, "reconcile", _nothing
    ),
    "success does not end a row of failures": lambda: mock.patch.object(Peers, "succeeded", _nothing),
    "tasks are cut larger than a frame may be": _no_limit_of_frames,
    "sleepers are never woken": lambda: mock.patch.object(Sleepers, "rouse", lambda *_: []),
    "a member that the coordinator does not know stays silent": _ignore_unknown,
    "nobody looks where a coordinator is now": lambda: mock.patch.object(moving, "SILENT_S", 1e9),
    "a loop that is left keeps its batches": _keep_open_batches,
    "what a worker gives back is nobody's": _lose_what_a_drain_gives_back,
    "rows of a shared answer are taken from its start": _write_at_the_first_row,
    "a batch is ready before its last label": _deliver_what_is_half_labelled,
    "a group that was missing is missed for good": _miss_for_good,
    "an answer goes to the oldest request instead of its own": _answer_the_oldest,
    "a rank that is a step behind keeps its weights": _keep_what_a_rank_behind_has,
    "labels of older versions are kept": lambda: mock.patch.object(Delivery, "retire", _nothing),
    "a batch is passed over while another teacher owes it labels": lambda: mock.patch.object(
        LabelQueue, "lacks_only", lambda self, teachers: frozenset(teachers)
    ),
    "a task that kills workers is given to the next": lambda: mock.patch.object(
        task_module, "_ALONE_AFTER", 1 << 30
    ),
}
"""Each by what it does, and how to put it in."""


@contextmanager
def defect(name: str) -> Iterator[None]:
    """The code with a defect."""
    with DEFECTS[name]():
        yield
