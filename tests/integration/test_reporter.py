"""``edldist.report``: figures reach a coordinator that may come late, die and come back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import edldist
from edldist.errors import ConfigError, InputError
from edldist.observe import reporter as reporting
from edldist.observe.reporter import Reporter, event
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import MAGIC, PROTOCOL_VERSION, Event, Refused, Report
from edldist.wire.zmq.transport import ZmqTransport
from tests.integration.reporters import ADDRESS, Listener, hurry


@pytest.fixture
def network() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """``edldist.report`` of this process, inside a job."""
    listener = Listener(ZmqTransport())
    monkeypatch.setenv("EDLDIST_COORDINATOR", listener.address)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(reporting, "_reporter", None)
    monkeypatch.setattr(reporting.atexit, "register", lambda *args: None)
    yield listener
    if reporting._reporter is not None:
        reporting._reporter.close()
    listener.close()


def test_reports_are_numbered_and_acknowledged(network: MemoryTransport) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=3, transport=network)
    reporter.start()
    for step in range(5):
        reporter.report({"step": step})
    reports = listener.take(5)
    assert [(r.seq, r.rank, r.values["step"]) for r in reports] == [(n + 1, 3, n) for n in range(5)]
    assert {r.reporter.encode() for r in reports} == {peer.route for peer in listener.peers}
    assert reporter.close() is True


def test_reports_wait_for_a_coordinator_that_comes_late(network: MemoryTransport) -> None:
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    reporter.start()
    reporter.report({"loss": 0.5})
    listener = Listener(network, ADDRESS)
    assert listener.take(1)[0].values == {"loss": 0.5}
    assert reporter.close() is True


def test_what_was_not_acknowledged_is_sent_again_in_order(network: MemoryTransport) -> None:
    first = Listener(network, ADDRESS)
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    reporter.start()
    for step in range(3):
        reporter.report({"step": step})
    assert [r.seq for r in first.take(3, acknowledge=False)] == [1, 2, 3]
    first.close()
    second = Listener(network, ADDRESS)
    seen = [r.seq for r in second.take(3)]
    assert seen == [1, 2, 3]
    assert reporter.close() is True


def test_what_was_acknowledged_is_not_sent_again(network: MemoryTransport) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.start()
    reporter.report({"step": 0})
    reporter.report({"step": 1})
    listener.take(2)
    reporter.report({"step": 2})
    later = [r.seq for r in listener.take(1)]
    assert reporter.close() is True
    while (received := listener.hub.receive()) is not None:
        later.append(received.message.seq)
    assert 3 in later
    assert 1 not in later


def test_events_are_numbered_among_the_reports_and_repeated_like_them(network: MemoryTransport) -> None:
    """What happened last in a process, such as a checkpoint at its end, must not get lost on the way."""
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.start()
    reporter.report({"step": 7})
    reporter.event("checkpoint_saved", {"step": 7})
    first = listener.take(2, acknowledge=False)
    again = listener.take(2)
    assert [(type(m), m.seq) for m in first] == [(Report, 1), (Event, 2)]
    assert again == first
    assert reporter.close() is True


def test_closing_without_a_coordinator_gives_up_in_time(
    network: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 0.2)
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    reporter.start()
    reporter.report({"step": 0})
    began = time.monotonic()
    assert reporter.close(5) is False
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("bad", ["refused", "version"])
def test_a_coordinator_that_will_never_take_reports_is_logged(
    network: MemoryTransport, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.start()
    reporter.report({"step": 0})
    listener.take(1, acknowledge=False)
    if bad == "refused":
        listener.hub.send(listener.peers[0], Refused(reason="not you"))
    else:
        network._to_link(listener.address, listener.peers[0].route, [MAGIC + bytes([PROTOCOL_VERSION + 1])])
    reporter._thread.join(10)
    assert not reporter._thread.is_alive()
    assert ("not you" if bad == "refused" else "wire protocol") in caplog.text
    reporter.report({"step": 1})
    assert reporter.close() is False


def test_outside_a_job_reports_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDLDIST_COORDINATOR", raising=False)
    monkeypatch.setattr(reporting, "_reporter", None)
    edldist.report(step=1, loss=0.5)
    event("checkpoint_saved", step=1)
    assert reporting._reporter is None


def test_values_of_any_number_type_arrive_plain(current: Listener) -> None:
    edldist.report(
        step=np.int64(3),
        loss=torch.tensor(0.5, requires_grad=True),
        accuracy=np.float64(0.75),
        rate=np.float32(2.0),
        best=np.bool_(True),
        done=False,
        note=np.str_("warm"),
        nothing=None,
        big=2**64 - 1,
    )
    (report,) = current.take(1)
    assert report.rank == 2
    assert report.values == {
        "step": 3,
        "loss": 0.5,
        "accuracy": 0.75,
        "rate": 2.0,
        "best": True,
        "done": False,
        "note": "warm",
        "nothing": None,
        "big": 2**64 - 1,
    }
    assert {type(value) for value in report.values.values()} == {int, float, bool, str, type(None)}


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, object(), torch.zeros(2), np.zeros(3), 1j, b"bytes", 2**64, -(2**63) - 1],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_travel_raises_where_it_was_given(current: Listener, value: object) -> None:
    with pytest.raises(InputError, match="loss"):
        edldist.report(loss=value)
    edldist.report(step=1)
    assert current.take(1)[0].values == {"step": 1}, "and reporting goes on"


def test_odd_text_does_not_end_reporting(current: Listener) -> None:
    edldist.report(note="half \ud800 pair")
    with pytest.raises(InputError, match="257 characters"):
        edldist.report(**{"k" * 257: 1})
    edldist.report(step=1)
    assert [set(r.values) for r in current.take(2)] == [{"note"}, {"step"}]


@pytest.mark.parametrize(
    "values",
    [{f"m{number}": number for number in range(1025)}, {f"m{number}": "x" * 60_000 for number in range(20)}],
    ids=["too many", "too long"],
)
def test_more_than_a_message_holds_raises_where_it_was_given(current: Listener, values: dict) -> None:
    """A coordinator would drop it as garbage, and this side send it again and again."""
    with pytest.raises(InputError, match=rf"report\(\) of {len(values)} values"):
        edldist.report(**values)
    with pytest.raises(InputError, match=rf"event\(\) of {len(values)} values"):
        event("big", **values)
    edldist.report(step=1, text="y" * 100_000)
    (report,) = current.take(1)
    assert report.seq == 1 and len(report.values["text"]) == 65_536


def test_a_wrong_address_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_COORDINATOR", "localhost:7070")
    monkeypatch.setattr(reporting, "_reporter", None)
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR.*localhost:7070"):
        edldist.report(step=1)


def test_the_coordinator_that_a_loader_was_given_gets_the_reports_and_that_is_said_once(
    current: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("EDLDIST_COORDINATOR")
    monkeypatch.delenv("EDLDIST_OUTPUT", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(reporting, "_coordinator", None)
    monkeypatch.setattr(reporting, "_said_where", False)
    with edldist.DistillLoader([], inputs="x", coordinator=current.address):
        reporting.event("remark", text="no figure")  # of which nobody asks where it goes
        assert not any("figures of report()" in message for message in caplog.messages)
        edldist.report(step=1, loss=0.5)
        edldist.report(step=2, loss=0.25)
        said = [record.message for record in caplog.records if "figures of report()" in record.message]
        assert said == [
            f"figures of report() go to the coordinator at {current.address}, which keeps them in files "
            "if it was started with --output"
        ]
        values = []
        while len(values) < 2:
            (message,) = current.take(1)
            if isinstance(message, Report) and message.values not in values:
                values.append(message.values)
    assert values == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_reports_go_to_the_coordinator_of_the_latest_loader(current: Listener) -> None:
    later = Listener(ZmqTransport())
    with contextlib.closing(later), ThreadPoolExecutor() as pool:
        edldist.report(step=1)
        first = pool.submit(current.take_new, 1)
        with edldist.DistillLoader([], inputs="x", coordinator=later.address):
            edldist.report(step=2)
            while not isinstance((told := later.take(1)[0]), Report):
                pass  # the loader has joined there, too
        (before,) = first.result()
        reporting.flush()
    assert isinstance(before, Report)
    assert (before.values, told.values) == ({"step": 1}, {"step": 2})


def test_a_loader_that_is_refused_changes_nothing_for_reports(current: Listener) -> None:
    with pytest.raises(ConfigError, match="on_poison"):
        edldist.DistillLoader([], inputs="x", coordinator="tcp://127.0.0.1:1", on_poison="shrug")
    edldist.report(step=1)
    (told,) = current.take_new(1)
    assert isinstance(told, Report) and told.values == {"step": 1}
