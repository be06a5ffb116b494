"""Recording, aligning clocks and drawing: pure."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.tracing.clocks import offsets
from edldist.tracing.kinds import Kind
from edldist.tracing.process import Exchange, TracedProcess
from edldist.tracing.recorder import Recorder, clock_name
from edldist.tracing.tape import RECORD_BYTES, Record, Tape, records_of
from edldist.tracing.timeline import timeline


def taped(*rows: tuple[Any, ...], capacity: int = 100) -> tuple[list[Record], int]:
    tape = Tape(lambda: 0.0)
    tape.begin(capacity, 1)
    for row in rows:
        tape.write(*row)
    data, lost = tape.end()
    return list(records_of(data)), lost


# --- the tape ------------------------------------------------------------------------------------------


def test_a_tape_returns_what_was_written_in_order() -> None:
    records, lost = taped((Kind.READ, 1.0, 2.0, 7, 64), (Kind.SENT, 2.0, 2.5, 0, 3, 1 << 40, 5))
    assert records == [
        Record(Kind.READ, 0, 64, 1.0, 2.0, 7, 0),
        Record(Kind.SENT, 5, 3, 2.0, 2.5, 0, 1 << 40),
    ]
    assert lost == 0


@given(written=st.integers(0, 40), capacity=st.integers(1, 12))
def test_a_full_tape_keeps_the_latest_and_counts_the_others(written: int, capacity: int) -> None:
    records, lost = taped(*((Kind.STEP, float(n), n + 0.5, n) for n in range(written)), capacity=capacity)
    assert [record.key for record in records] == list(range(written))[-capacity:]
    assert lost == max(0, written - capacity)


def test_a_tape_that_is_off_holds_nothing_and_takes_no_memory() -> None:
    tape = Tape(lambda: 0.0)
    tape.write(Kind.READ, 0.0, 1.0)  # a writer that looked just before it ended
    assert not tape.on and tape.end() == (b"", 0)
    tape.begin(1000, 1)
    assert tape.on
    tape.end()
    tape.write(Kind.READ, 0.0, 1.0)
    assert tape._ring is None and tape.end() == (b"", 0)


def test_a_tape_that_has_ended_begins_again_with_nothing() -> None:
    tape = Tape(lambda: 0.0)
    for first in (1, 7):
        tape.begin(2, 1)
        for n in range(3):
            tape.write(Kind.STEP, 0.0, 1.0, first + n)
        assert [record.key for record in records_of(tape.end()[0])] == [first + 1, first + 2]
        assert tape.end() == (b"", 0)


def test_what_does_not_fit_a_field_is_cut_and_costs_no_writer_anything() -> None:
    records, _ = taped((Kind.READ, 0.0, 1.0, 1 << 70, 1 << 40, -5, 1 << 20))
    assert records == [Record(Kind.READ, 65_535, (1 << 32) - 1, 0.0, 1.0, (1 << 64) - 1, 0)]


@given(st.binary(max_size=5 * RECORD_BYTES))
def test_any_bytes_are_records_or_nothing(data: bytes) -> None:
    process = TracedProcess("s", "student", exchanges=[Exchange(0.0, 1.0, 2.0, 3.0)])
    process.add(data)
    for record in records_of(data):
        assert record.start <= record.end < math.inf
    json.dumps(timeline([process], "c"), allow_nan=False)


def test_a_recorder_names_peers_by_small_numbers_and_begins_anew() -> None:
    recorder = Recorder(lambda: 0.0, ("loop", "I/O"))
    first, second = recorder.number("a"), recorder.number("b")
    assert recorder.number("a") == first != second and 0 not in (first, second)
    assert recorder.names == {first: "a", second: "b"}
    recorder.begin(10, 1)
    assert recorder.names == {} and recorder.on and recorder["loop"].on
    numbers = [recorder.number(f"w{n}") for n in range(2000)]
    assert len(recorder.names) == 1024 and numbers[-1] == 0
    assert [each.thread for each in recorder.end()] == ["loop", "I/O"]
    assert not recorder.on and not recorder["loop"].on


def test_names_can_be_read_while_another_thread_adds_some() -> None:
    """The I/O thread reads them when the time is up; the compute thread may be in the middle of a pass."""
    recorder = Recorder(lambda: 0.0, ("I/O",))

    class Names(dict[str, int]):
        def items(self) -> Any:  # what a thread that comes between two steps of a loop does
            for item in super().items():
                recorder._names.setdefault(f"another {len(recorder._names)}", 9)
                yield item

        def copy(self) -> dict[str, int]:
            return dict(dict.items(self))

    recorder._names = Names(a=1, b=2)
    assert recorder.names == {1: "a", 2: "b"}


def test_processes_of_one_machine_have_one_clock() -> None:
    assert clock_name() and clock_name() == clock_name()


# --- clocks --------------------------------------------------------------------------------------------


def process(name: str, role: str, clock: str, *records: Record, **more: Any) -> TracedProcess:
    made = TracedProcess(name, role, clock=clock, **more)
    for record in records:
        made.records.setdefault(record.kind, []).append(record)
    return made


def of_task(kind: Kind, lease: int, at: float, peer: int = 0, more: int = 0, took_s: float = 0.0) -> Record:
    return Record(kind, peer, 8, at, at + took_s, lease, more)


@given(
    ahead=st.floats(-1e5, 1e5),
    delays=st.lists(st.tuples(st.floats(1e-5, 0.5), st.floats(1e-5, 0.5)), min_size=1, max_size=8),
)
def test_the_error_that_is_told_holds_whatever_the_delays(
    ahead: float, delays: list[tuple[float, float]]
) -> None:
    there, back = [], []
    for lease, (out_s, home_s) in enumerate(delays):
        left = 10.0 * lease
        there.append(
            (of_task(Kind.LEASED, lease, left), of_task(Kind.RECEIVED, lease, left + out_s + ahead, 1))
        )
        went = left + out_s + 1.0
        back.append(
            (of_task(Kind.RETURNED, lease, went + ahead, 1), of_task(Kind.PLACED, lease, went + home_s))
        )
    student = process("s", "student", "one", *(a for a, _ in there), *(b for _, b in back))
    worker = process("w", "teacher", "two", *(b for _, b in there), *(a for a, _ in back), names={1: "s"})
    found = offsets([student, worker], "c", "one")
    assert found["one"] == (0.0, 0.0)
    assert abs(found["two"].seconds - ahead) <= found["two"].error_s + 1e-6
    least = min(a for a, _ in delays) + min(b for _, b in delays)
    assert found["two"].error_s == pytest.approx(least / 2, abs=1e-6)


def test_a_worker_without_tasks_is_aligned_by_its_order_through_the_coordinator() -> None:
    # The coordinator is 100 s ahead of the student, the worker 30 s ahead of the coordinator.
    student = process("s", "student", "a", exchanges=[Exchange(100.0, 0.01, 5.0, 105.01)])
    worker = process("w", "teacher", "b", exchanges=[Exchange(100.0, 130.002, 135.0, 105.004)])
    found = offsets([student, worker], "c", "a")
    assert found["b"].seconds == pytest.approx(130.0, abs=0.02)
    assert found["b"].error_s == pytest.approx((0.02 + 0.006) / 2, abs=1e-6)


def test_a_clock_that_nothing_relates_is_left_out_and_one_host_needs_nothing() -> None:
    student = process("s", "student", "a")
    neighbour = process("w", "teacher", "a")
    stranger = process("x", "teacher", "b")
    assert set(offsets([student, neighbour, stranger], "c", "a")) == {"a"}


# --- the picture ---------------------------------------------------------------------------------------


def whole_life() -> list[TracedProcess]:
    """One batch of two tasks, from its reading to its step; the worker's clock is 1,000 s ahead."""
    student = process(
        "rank0-x",
        "student",
        "one",
        Record(Kind.READ, 0, 16, 1.00, 1.01, 7, 0),
        Record(Kind.QUEUED, 0, 16, 1.01, 1.01, 7, 4096),
        Record(Kind.LEASED, 1, 8, 1.02, 1.021, 41, 7),
        Record(Kind.LEASED, 1, 8, 1.02, 1.021, 42, 7),
        Record(Kind.SENT, 1, 2, 1.021, 1.022, 0, 4096),
        Record(Kind.STARVED, 0, 0, 1.02, 1.10, 0, 0),
        Record(Kind.PLACED, 1, 8, 1.08, 1.09, 41, 0),
        Record(Kind.PLACED, 1, 8, 1.08, 1.09, 42, 0),
        Record(Kind.TAKEN, 1, 2, 1.08, 1.09, 0, 640),
        Record(Kind.DELIVERED, 0, 16, 1.10, 1.10, 7, 0),
        Record(Kind.STEP, 0, 16, 1.10, 1.20, 7, 0),
        host="a",
        rank=0,
        names={1: "t-1"},
    )
    stages = (Kind.DECODE, Kind.COPY_IN, Kind.FORWARD, Kind.ENCODE, Kind.COPY_OUT)
    worker = process(
        "t-1",
        "teacher",
        "two",
        Record(Kind.RECEIVED, 1, 8, 1001.024, 1001.025, 41, 0),
        Record(Kind.RECEIVED, 1, 8, 1001.024, 1001.025, 42, 0),
        Record(Kind.TAKEN, 1, 2, 1001.024, 1001.025, 0, 4096),
        Record(Kind.BATCHED, 1, 8, 1001.03, 1001.03, 41, 3),
        Record(Kind.BATCHED, 1, 8, 1001.03, 1001.03, 42, 3),
        *(Record(kind, 0, 16, 1001.03 + n / 100, 1001.04 + n / 100, 3, 0) for n, kind in enumerate(stages)),
        Record(Kind.PASS, 0, 16, 1001.03, 1001.077, 3, 64),
        Record(Kind.RETURNED, 1, 8, 1001.077, 1001.078, 41, 0),
        Record(Kind.RETURNED, 1, 8, 1001.077, 1001.078, 42, 0),
        Record(Kind.SENT, 1, 2, 1001.077, 1001.078, 0, 640),
        Record(Kind.IDLE, 0, 0, 1001.0, 1001.02, 0, 0),
        group="big",
        host="b",
        names={1: "rank0-x"},
    )
    return [worker, student]


def test_a_batch_is_followed_through_both_processes() -> None:
    document = timeline(whole_life(), "coordinator", {"seconds": 5})
    events = document["traceEvents"]
    names = {(e["pid"], e["args"]["name"]) for e in events if e["name"] == "process_name"}
    assert names == {(1, "student rank 0"), (2, "big t-1")}
    spans = {e["name"]: e for e in events if e["ph"] == "X"}
    assert {
        *("read batch 7", "step with batch 7", "starved: waits for labels", "cut tasks", "send 2 tasks"),
        *("labels of 2 tasks", "receive 2 tasks", "no work"),
        *("decode 3", "copy in 3", "forward 3", "encode 3", "copy out 3"),
    } == set(spans)
    # One order in time across the two clocks, and arrows from slice to slice.
    order = ["read batch 7", "send 2 tasks", "receive 2 tasks", "forward 3", "encode 3", "step with batch 7"]
    assert sorted(order, key=lambda name: spans[name]["ts"]) == order
    lives = [e["name"] for e in events if e["ph"] == "b" and e["cat"] == "batch"]
    assert lives == [
        *("batch 7", "waits for a worker", "at workers", "labelled: waits for its turn", "with the loop"),
    ]
    assert [e["name"] for e in events if e["ph"] == "i"] == ["queued 7", "delivered 7"]
    passed = next(e for e in events if e["ph"] == "b" and e["cat"] == "pass")
    assert passed["args"] == {
        "samples": 16,
        "samples_of_a_full_pass": 64,
        "tasks": 2,
        "longest_wait_ms": 5.0,
    }
    assert document["otherData"]["seconds"] == 5
    clock = document["otherData"]["clocks"]["t-1"]
    assert clock["ahead_s"] == pytest.approx(1000.0, abs=clock["error_s"])
    assert clock["error_s"] == pytest.approx(0.003)


def test_every_arrow_begins_and_ends_in_a_slice_and_crosses_the_processes() -> None:
    events = timeline(whole_life(), "coordinator")["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    flows: dict[int, list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] in "stf":
            flows.setdefault(event["id"], []).append(event)
            assert any(
                s["pid"] == event["pid"]
                and s["tid"] == event["tid"]
                and s["ts"] - 0.01 <= event["ts"] <= s["ts"] + s["dur"] + 0.01
                for s in slices
            ), event
    tasks = [flow for flow in flows.values() if flow[0]["cat"] == "task"]
    batches = [flow for flow in flows.values() if flow[0]["cat"] == "batch"]
    assert [[e["ph"] for e in flow] for flow in tasks] == [["s", "t", "t", "t", "f"]] * 2
    assert [[e["pid"] for e in flow] for flow in tasks] == [[1, 2, 2, 2, 1]] * 2
    assert [[e["ph"] for e in flow] for flow in batches] == [["s", "t", "t", "f"]]


def test_slices_of_a_row_are_within_each_other_or_apart() -> None:
    events = timeline(whole_life(), "coordinator")["traceEvents"]
    rows: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for e in events:
        if e["ph"] == "X":
            rows.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    for row, spans in rows.items():
        spans.sort()
        for (_, end), (start, later) in zip(spans, spans[1:], strict=False):
            # The loop of the story reads and waits at once, which a real one does one after the other.
            assert start >= end - 0.01 or later <= end + 0.01 or row == (1, 1), (row, spans)


def test_half_of_a_life_is_drawn_as_far_as_it_is_known() -> None:
    student = process(
        "s",
        "student",
        "one",
        of_task(Kind.PLACED, 9, 1.0),
        Record(Kind.QUEUED, 0, 4, 1.5, 1.5, 8, 0),
        Record(Kind.STEP, 0, 4, 1.2, 1.3, 3, 0),
    )
    document = timeline([student, process("w", "teacher", "")], "c")
    assert document["otherData"]["clocks"]["w"] == "unknown"
    assert {"step with batch 3", "batch 8"} <= {e["name"] for e in document["traceEvents"]}


def test_what_lies_outside_of_the_trace_is_left_out_and_what_began_before_it_is_cut() -> None:
    tape = Tape(lambda: 0.0)
    tape.begin(10, 1)
    tape.write(Kind.STARVED, 99.0, 101.0)
    tape.write(Kind.STEP, 1e300, 1e301)
    tape.write(Kind.STEP, -1e300, 5.0)
    made = TracedProcess("s", "student", exchanges=[Exchange(1.0, 100.0, 105.0, 6.0)])
    made.add(tape.end()[0])
    assert [(r.kind, r.start, r.end) for r in made.of(Kind.STARVED, Kind.STEP)] == [
        (Kind.STARVED, 100.0, 101.0)
    ]


def test_nobody_recorded_anything() -> None:
    assert timeline([], "c")["traceEvents"] == []
