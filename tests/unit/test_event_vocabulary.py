"""What members may report is written down once, and whoever reports keeps to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.clock import FakeClock
from edldist.errors import WireError
from edldist.wire.enrolment import Enrolment
from edldist.wire.events import FROM_MEMBERS, check_event
from edldist.wire.messages import Event, Heartbeat, Register, Registered, Report, decode, encode

EDLDIST = Path(__file__).resolve().parents[2] / "edldist"
GOOD = {
    "clock_skew": {"id": "w", "host": "h", "skew_s": -3.5, "coordinator": "c"},
    "teacher_quarantined": {"worker": "w", "for_s": 8, "error": "e"},
    "teacher_put_aside": {
        **{"student": "s", "worker": "w", "teacher": "t", "host": "h", "reason": "r"},
        **{"retracted": 8, "consumed": 16},
    },
    "teacher_readmitted": {"student": "s", "worker": "w", "teacher": "t"},
    "task_requeued": {"student": "s", "worker": "w", "teacher": "t", "tasks": 2, "reason": "r"},
    "labels_missing": {"student": "s", "teacher": "t", "gone_s": 30.0},
    "labels_back": {"student": "s", "teacher": "t", "gone_s": 40.5},
    "task_poisoned": {"student": "s", "teacher": "t", "batch": 0, "samples": "0..3", "error": "e"},
    "checkpoint_saved": {"step": 1, "bytes": 10, "seconds": 0.5},
    "checkpoint_restored": {"step": 1, "bytes": 10, "seconds": 0.5},
    "checkpoint_failed": {"step": 1, "reason": "r"},
    "checkpoint_damaged": {"step": 1, "reason": "r"},
    "loss_spiked": {
        **{"step": 1, "what": "loss", "value": "nan", "bound": "2.5", "epoch": 0, "position": 64},
    },
    "rolled_back": {"step": 12, "restored": 10, "batches": 1, "in_a_row": 1},
    "node_ended": {"host": "h", "code": 143},
    "remark": {"text": "t"},
}
FORGED = ("soon", -1, float("nan"), float("inf"), None, True, 2.5, 10**15)


def event(name: str, **fields: object) -> Event:
    return Event(event=name, t=1.0, fields=fields)


def reported() -> Iterator[tuple[str, set[str]]]:
    """Each event that the package reports for a member, with the names of its fields."""
    for path in EDLDIST.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("_add", "event"):
                name = node.args[0] if node.args else None
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value, {keyword.arg or "" for keyword in node.keywords}


def test_every_event_that_is_reported_is_known_with_its_fields() -> None:
    found = list(reported())
    assert {name for name, _ in found} | {"clock_skew", "node_ended"} == set(FROM_MEMBERS) == set(GOOD)
    for name, fields in found:
        assert fields == set(FROM_MEMBERS[name].__struct_fields__) == set(GOOD[name])


def test_a_clock_skew_is_reported_as_it_should_be() -> None:
    clock = FakeClock(100.0)
    register = Register(id="w", role="teacher", process="p", host="h")
    enrolment = Enrolment(
        "w", lambda _: register, lambda: Heartbeat(id="w"), "tcp://c:1", 60.0, clock.monotonic()
    )
    enrolment.due(clock.monotonic())
    answer = Registered(
        incarnation="one", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0, wall_s=5_000.0, asked_wall_s=1_000.0
    )
    enrolment.on_message(answer, clock.monotonic(), 1_001.0)
    (skew,) = (message for message in enrolment.due(clock.monotonic()) if isinstance(message, Event))
    check_event(skew)


@pytest.mark.parametrize("name", GOOD)
def test_an_event_as_it_should_be_is_taken(name: str) -> None:
    check_event(event(name, **GOOD[name]))


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in GOOD for field in GOOD[name]])
def test_a_field_of_another_type_missing_or_too_many_is_refused(name: str, field: str) -> None:
    good = GOOD[name]
    wrong = [value for value in FORGED if type(value) is not type(good[field])]
    if isinstance(good[field], float):
        wrong = ["soon", None, True, float("nan"), float("inf"), 10**15]
    elif field == "for_s":
        wrong = ["soon", None, True, float("nan"), -1, 10**15]
    for value in wrong:
        with pytest.raises(WireError, match=f"{name} is not as it should be.*{field}"):
            check_event(event(name, **good | {field: value}))
    with pytest.raises(WireError, match=field):
        check_event(event(name, **{key: value for key, value in good.items() if key != field}))
    with pytest.raises(WireError, match="extra"):
        check_event(event(name, **good, extra=1))


@pytest.mark.parametrize(
    "name",
    [
        *("teacher_joined", "teacher_left", "teacher_lost", "student_joined", "student_left", "student_lost"),
        *("coordinator_started", "keys_changed", "scaled", "job_completed", "report", "", "checkpoint"),
    ],
)
def test_only_the_coordinator_says_who_is_here(name: str) -> None:
    """A forged ``student_lost`` would have a node's supervisor kill the rank."""
    with pytest.raises(WireError, match="no member may report"):
        check_event(event(name, id="w", silent_s="soon"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_figures_that_are_added_up_are_finite_and_a_loss_may_be_anything(value: float) -> None:
    with pytest.raises(WireError, match="Expected `float`"):
        decode(encode(Heartbeat(id="w", stats={"buffered": value})))
    with pytest.raises(WireError, match="Expected `float`"):
        decode(encode(Register(id="w", role="teacher", process="p", info={"rank": value})))
    report = decode(encode(Report(reporter="r", seq=1, rank=0, t=1.0, values={"loss": value})))
    assert isinstance(report, Report) and str(report.values["loss"]) == str(value)
    for message in (
        Report(reporter="r", seq=1, rank=0, t=value, values={}),
        Event(event="e", t=value),
        Register(id="w", role="teacher", process="p", wall_s=value),
    ):
        with pytest.raises(WireError, match="Expected `float`"):
            decode(encode(message))


def test_a_member_with_a_figure_that_is_no_number_goes_on_being_heard() -> None:
    register = Register(id="w", role="teacher", process="p")
    stats = {"rate": float("nan"), "peak": float("inf"), "samples": 3, "device": "cpu"}
    said = Heartbeat(id="w", stats=stats, capacity=5.0)
    enrolment = Enrolment("w", lambda _: register, lambda: said, "tcp://c:1", 60.0, 0.0)
    enrolment.due(0.0)
    enrolment.on_message(Registered(incarnation="1", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0), 0.0, 1.0)
    (heartbeat,) = enrolment.due(5.0)
    beat = decode(encode(heartbeat))
    assert isinstance(beat, Heartbeat)
    assert beat.stats == {"rate": None, "peak": None, "samples": 3, "device": "cpu"} and beat.capacity == 5.0
