"""Events reach the coordinator's link once each and in their order, whenever it takes them."""

from __future__ import annotations

import pytest

from edldist.clock import FakeClock
from edldist.student.queue.outcomes import Poison, Returned
from edldist.student.service.job.events import Events, last_line


class Link:
    """Takes as many messages as it has room for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = []

    def send(self, message, frames=()) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.taken.append(message)
        return True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


def lost(requeued=0, *attempts: str) -> Returned:
    return Returned(requeued, [Poison("teacher", 7, range(4, 8), list(attempts))] if attempts else [])


def test_what_a_full_link_refuses_is_offered_again_in_its_order(clock):
    events = Events("s", clock)
    for number in range(1, 6):
        events.requeued(lost(number), "w", "teacher", "silent")
    link = Link(room=2)
    events.send(link)
    assert len(events) == 3
    events.send(link)
    assert len(events) == 3
    events.requeued(lost(6), "w", "teacher", "silent")
    link.room = 100
    events.send(link)
    events.send(link)
    assert not len(events)
    assert [event.fields["tasks"] for event in link.taken] == [1, 2, 3, 4, 5, 6]


def test_events_carry_the_time_at_which_they_happened(clock):
    events, link = Events("s", clock), Link(room=0)
    happened = clock.wall()
    events.quarantined("w", 30.0, "ValueError: odd")
    clock.advance(60)
    events.send(link)
    link.room = 1
    events.send(link)
    (event,) = link.taken
    assert event.t == happened and event.event == "teacher_quarantined"
    assert event.fields == {"worker": "w", "for_s": 30.0, "error": "ValueError: odd"}


def test_a_loss_names_the_worker_and_what_was_given_up(clock):
    events, link = Events("s", clock), Link(room=9)
    events.requeued(lost(2, "first", "Traceback\n  ...\nValueError: odd"), "w", "teacher", "silent")
    events.requeued(lost(), "w", "teacher", "it gave them back")  # nothing happened
    events.send(link)
    requeued, poisoned = link.taken
    assert (requeued.event, poisoned.event) == ("task_requeued", "task_poisoned")
    assert requeued.fields == {
        "student": "s",
        "worker": "w",
        "teacher": "teacher",
        "tasks": 2,
        "reason": "silent",
    }
    assert poisoned.fields == {
        "student": "s",
        "teacher": "teacher",
        "batch": 7,
        "samples": "4..7",
        "error": "ValueError: odd",
    }


def test_an_error_is_told_by_its_last_line():
    assert last_line("Traceback:\n  line\nValueError: odd\n\n") == "ValueError: odd"
    assert len(last_line("x" * 1000)) == 500
