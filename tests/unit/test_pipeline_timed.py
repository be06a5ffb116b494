"""A task's passage through a pass: timed by stage, in the first pass that takes it and in no other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edldist.clock import FakeClock
from edldist.teacher.passage import Passage
from edldist.teacher.passes.lane import HostLane
from edldist.teacher.passes.stopwatch import Stage, Stopwatch
from edldist.teacher.tasks import HeldTask
from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Tape
from edldist.wire.messages import STAGES
from tests.unit.passes import Apron, Crew, Shelf, fits, poison, task

TAKES_S = {Kind.DECODE: 1.0, Kind.COPY_IN: 2.0, Kind.FORWARD: 4.0, Kind.ENCODE: 8.0, Kind.COPY_OUT: 16.0}


class Slow(Stopwatch):
    """Every stage takes as long as none of the others, or all of them together."""

    def __init__(self) -> None:
        self.clock = FakeClock(100.0)
        super().__init__(Tape(self.clock.monotonic))

    @contextlib.contextmanager
    def stage(self, kind: Kind) -> Iterator[None]:
        with super().stage(kind):
            self.clock.advance(TAKES_S[kind])
            yield


def crew_of(watch: Slow, model=poison, lane: HostLane | None = None, **options) -> Crew:
    """A crew whose look at inputs takes 32 seconds."""
    crew = Crew(model, lane or HostLane(watch), trace=(watch,), **options)
    crew.pipeline._forward.vet = lambda parts: watch.clock.advance(32.0)
    return crew


def timed(*tasks: HeldTask, at: float = 100.0) -> tuple[Passage, list[HeldTask]]:
    """Tasks of one message, which is timed."""
    passage = Passage(at)
    return passage, [replace(each, inputs=replace(each.inputs, passage=passage)) for each in tasks]


def passages(crew: Crew) -> list[Passage | None]:
    return [outcome.passage for outcome in crew.pipeline.step()]


def figures(passage: Passage) -> tuple[int, ...]:
    return (passage.tasks, passage.samples, passage.rows, passage.bytes_in, passage.bytes_out)


def seconds(passage: Passage) -> dict[str, float]:
    """Of the stages and the waits that took any; a wait has a ``-`` before its stage."""
    stages, waits, total_s = passage.durations()
    assert sum(stages) + sum(waits) == total_s
    took = dict(zip(STAGES, stages, strict=True))
    took |= {f"-{stage}": wait for stage, wait in zip(STAGES, waits, strict=True)}
    return {stage: each for stage, each in took.items() if each}


def test_each_stage_of_a_pass_is_timed_and_what_it_had():
    watch = Slow()
    crew = crew_of(watch)
    passage, tasks = timed(replace(task(1, 5, 6), samples=1), task(2))
    watch.clock.advance(64.0)
    crew.pipeline.begin(tasks)
    assert passages(crew) == [passage]
    assert seconds(passage) == {
        "-decode": 64.0,
        **{"decode": 1.0, "batch": 32.0, "copy_in": 2.0, "forward": 4.0, "encode": 8.0, "copy_out": 16.0},
    }
    assert figures(passage) == (2, 2, 3, 24, 24)


def test_inputs_that_are_read_are_decoded_when_the_last_is_there():
    watch, shelf = Slow(), Shelf()
    crew = crew_of(watch, reader=shelf)
    passage, tasks = timed(task(1), task(2, 5, 6))
    crew.pipeline.begin(tasks)
    for each in tasks:
        watch.clock.advance(64.0)
        shelf.hand_over(each)
    watch.clock.advance(256.0)
    assert passages(crew) == [passage]
    # Taking them over is a part of the wait: it waits for nobody.
    assert seconds(passage) == {
        **{"decode": 128.0, "-batch": 257.0, "batch": 32.0},
        **{"copy_in": 2.0, "forward": 4.0, "encode": 8.0, "copy_out": 16.0},
    }
    assert figures(passage) == (2, 3, 3, 24, 24)


def test_of_a_message_the_first_task_that_a_pass_takes_is_timed():
    watch = Slow()
    crew = crew_of(watch)
    passage, tasks = timed(task(1), task(2))
    other, others = timed(task(3))
    crew.pipeline.begin([task(0), tasks[0], *others])
    assert passages(crew) == [passage] and figures(passage)[0] == 3
    before = seconds(passage)
    crew.pipeline.begin(tasks[1:])
    assert passages(crew) == [None] and seconds(passage) == before
    crew.pipeline.begin(others)
    assert passages(crew) == [other], "a pass times one way: another pass may take the other's task"


def test_what_is_not_timed_costs_and_tells_nothing():
    watch = Slow()
    crew = crew_of(watch)
    crew.pipeline.begin([task(1)])
    assert passages(crew) == [None]
    passage, tasks = timed(task(2))
    crew.pipeline.begin([replace(tasks[0], compared=True)])
    assert passages(crew) == [None] and not passage.taken
    assert watch.take() == []


@pytest.mark.parametrize("by_reference", [False, True])
def test_a_pass_after_a_timed_one_notes_nothing(by_reference):
    watch, shelf = Slow(), Shelf() if by_reference else None
    crew = crew_of(watch, reader=shelf)
    passage, tasks = timed(task(1))
    for each in (*tasks, task(2)):
        crew.pipeline.begin([each])
        if shelf is not None:
            shelf.hand_over(each)
        crew.turn()
        assert watch.timed == (each is tasks[0]) and watch.take() == []
    assert crew.labels == {1: [2], 2: [4]}


def test_a_task_of_a_pass_that_failed_is_timed_no_more():
    watch = Slow()
    crew = crew_of(watch)
    passage, tasks = timed(task(1), task(13))
    crew.pipeline.begin(tasks)
    assert passages(crew) == [None, None] and passage.taken


def test_a_pass_that_is_done_again_in_pieces_is_timed_as_it_was_the_last_time():
    watch = Slow()
    crew = crew_of(watch, fits(2))
    passage, tasks = timed(task(1, 2, 3, 4))
    crew.pipeline.begin(tasks)
    assert passages(crew) == [passage]
    # Two attempts of one or two pieces: 1 + 32 + 2 + 4 each that ended at the model, the second for good.
    assert seconds(passage)["forward"] == 4.0 and seconds(passage)["copy_out"] == 16.0
    assert seconds(passage)["batch"] == 32.0 and watch.clock.monotonic() == 100.0 + 2 * 39.0 + 24.0


class Late(Apron):
    """A lane that learns of a stage when a pass has landed, as one of an engine does."""

    def __init__(self, watch: Slow) -> None:
        super().__init__()
        self._own = watch
        self.timed: list[bool] = []

    def launch(self, parts, compute):
        flight = super().launch(parts, compute)
        labels = flight.labels

        def landed():
            self.timed.append(self._own.timed)
            now = self._own.clock.monotonic()
            if self._own.timed:
                self._own.note(Stage(Kind.COPY_OUT, now - 3.0, now))
                self._own.note(Stage(Kind.PASS, now - 5.0, now))
            return labels()

        flight.labels = landed
        return flight


def test_stages_that_a_lane_learns_of_when_a_pass_has_landed_are_its_own():
    watch = Slow()
    lane = Late(watch)
    crew = crew_of(watch, lane=lane)
    first, tasks = timed(task(1))
    crew.pipeline.begin(tasks)
    second, tasks = timed(task(2), at=watch.clock.monotonic())
    crew.pipeline.begin([*tasks])
    watch.clock.advance(64.0)
    for flight in reversed(lane.flights):
        flight.is_down = True
        (passage,) = passages(crew)
        assert seconds(passage)["copy_out"] == 3.0
        assert passage is (second if flight is lane.flights[1] else first)
    assert seconds(first)["-copy_out"] == 64.0 + 45.0 - 3.0


def test_whether_a_pass_is_timed_is_told_when_it_lands_whoever_was_launched_last():
    watch = Slow()
    lane = Late(watch)
    crew = crew_of(watch, lane=lane)
    _, tasks = timed(task(1))
    crew.pipeline.begin(tasks)
    crew.pipeline.begin([task(2)])
    for flight in lane.flights:
        flight.is_down = True
    assert [each is not None for each in passages(crew)] == [True, False] == lane.timed
