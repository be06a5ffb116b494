"""What a trace tells of passes: which tasks each had, and when its stages began and ended."""

from __future__ import annotations

from edldist.clock import FakeClock
from edldist.teacher.passes.stopwatch import Stopwatch
from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Record, Tape, records_of
from tests.unit.passes import Apron, Crew, poison, task

STAGES = {Kind.DECODE, Kind.FORWARD, Kind.ENCODE}


class Traced:
    """A crew whose model takes a quarter of a second, and the tape of its compute thread."""

    def __init__(self, lane=None, **numbers: int) -> None:
        self.clock = FakeClock(100.0)
        self.tape = Tape(self.clock.monotonic)
        names = (numbers.__getitem__,) if numbers else ()
        self.crew = Crew(self.label, lane, trace=(Stopwatch(self.tape), *names))

    def label(self, id):  # noqa: A002
        self.clock.advance(0.25)
        return poison(id)

    def records(self, *kinds: Kind) -> list[Record]:
        return [record for record in records_of(self.tape.end()[0]) if record.kind in kinds]


def test_a_pass_is_told_with_the_tasks_that_are_sampled_from_its_begin_to_its_answers() -> None:
    lane = Apron()
    traced = Traced(lane, s=7)
    traced.tape.begin(100, 2)
    traced.crew.pipeline.begin([task(2), task(3, 5, 6)])
    traced.crew.pipeline.begin([task(4)])
    for flight in lane.flights:
        flight.is_down = True
    traced.clock.advance(1.0)
    traced.crew.turn()
    assert traced.crew.labels == {2: [4], 3: [10, 12], 4: [8]}
    assert traced.records(Kind.BATCHED, Kind.PASS) == [
        Record(Kind.BATCHED, 7, 1, 100.0, 100.0, 2, 1),
        Record(Kind.BATCHED, 7, 1, 100.25, 100.25, 4, 2),
        Record(Kind.PASS, 0, 3, 100.0, 101.5, 1, 8),
        Record(Kind.PASS, 0, 1, 100.25, 101.5, 2, 8),
    ]


def test_stages_are_told_when_their_pass_is_answered() -> None:
    traced = Traced()
    traced.tape.begin(100, 1)
    traced.crew.run([task(1, 5, 6)])
    assert traced.records(*STAGES) == [
        Record(Kind.DECODE, 0, 2, 100.0, 100.0, 1, 0),
        Record(Kind.FORWARD, 0, 2, 100.0, 100.25, 1, 0),
        Record(Kind.ENCODE, 0, 2, 100.25, 100.25, 1, 0),
    ]


def test_stages_of_a_pass_that_failed_are_not_those_of_the_next_one() -> None:
    traced = Traced()
    traced.tape.begin(100, 1)
    traced.crew.run([task(1, 13)], [task(2)])
    assert traced.crew.errors.keys() == {1} and traced.crew.labels == {2: [4]}
    assert [(record.kind, record.key) for record in traced.records(Kind.PASS, *STAGES)] == [
        *((Kind.DECODE, 2), (Kind.FORWARD, 2), (Kind.ENCODE, 2), (Kind.PASS, 2))
    ]


def test_a_student_that_nobody_numbers_is_none() -> None:
    traced = Traced()
    traced.tape.begin(100, 1)
    traced.crew.run([task(1)])
    assert [record.peer for record in traced.records(Kind.BATCHED)] == [0]


def test_a_pass_that_was_under_way_when_a_trace_began_is_left_out() -> None:
    lane = Apron()
    traced = Traced(lane)
    traced.crew.pipeline.begin([task(1)])
    traced.tape.begin(100, 1)
    lane.flights[0].is_down = True
    traced.crew.turn()
    assert traced.crew.labels == {1: [2]} and traced.records(*Kind) == []
