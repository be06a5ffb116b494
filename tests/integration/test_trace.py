"""A trace of a job that runs: asked for, recorded by its roles, drawn; and whatever may go wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edldist.errors import ConfigError, CoordinatorUnreachableError, RefusedError
from edldist.tracing.timeline import timeline
from edldist.wire.memory import MemoryTransport
from edldist.wire.query import StatusClient
from edldist.wire.trace_query import Collected, TraceClient
from edldist_launch.view.traces import processes_of, write_trace
from tests.harness import LocalJob, local_job
from tests.integration.members import Running, student, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def job() -> Iterator[LocalJob]:
    with local_job(MemoryTransport()) as running:
        yield running


class Loop:
    """A training loop in a thread of its own, over endless batches, until it is told to end."""

    def __init__(self, job: LocalJob, batch: int = 8) -> None:
        self.steps = 0
        self._over = threading.Event()
        self.loader = job.loader(self._batches(batch), checkpointed=False)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.steps > 2, "a step")

    def _batches(self, batch: int) -> Iterator[torch.Tensor]:
        while not self._over.is_set():
            yield torch.ones(batch, 3)

    def _run(self) -> None:
        for _ in self.loader:
            self.steps += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def loop(job: LocalJob) -> Iterator[Loop]:
    job.teacher("identify")
    looping = Loop(job)
    yield looping
    looping.end()


def traced(client: TraceClient, seconds: float = 0.3, sample: int = 1) -> Collected:
    collected = client.begin(seconds, sample)
    client.collect(collected, seconds, patience_s=20.0)
    return collected


def kinds(document: dict[str, Any]) -> set[str]:
    return {event["name"].rstrip("0123456789").strip() for event in document["traceEvents"]}


def test_a_batchs_life_is_recorded_across_its_processes(job: LocalJob, loop: Loop) -> None:
    with contextlib.closing(TraceClient(job.address, job.transport)) as client:
        collected = traced(client)
        assert collected.silent == [] and {m.role for m in collected.members} == {"student", "teacher"}
        document = timeline(processes_of(collected), collected.clock)
        assert kinds(document) >= {
            *("read batch", "step with batch", "queued", "delivered", "batch", "pass", "decode"),
            *("copy in", "forward", "encode", "copy out", "at workers", "with the loop"),
        }
        flows: dict[int, list[int]] = {}
        for event in document["traceEvents"]:
            if event["ph"] in "stf" and event["cat"] == "task":
                flows.setdefault(event["id"], []).append(event["pid"])
        assert [1, 2, 2, 2, 1] in flows.values()
        # Another one afterwards, of fewer tasks; and nothing is recorded in between.
        few = timeline(processes_of(traced(client, sample=1_000_000)), collected.clock)
        assert sum(event.get("cat") == "task" for event in few["traceEvents"]) <= 5
        assert not loop.loader._service.recorder.on and not job.workers[0].service.recorder.on


def test_a_trace_changes_nothing_that_a_loop_sees(job: LocalJob) -> None:
    job.teacher("identify", batch_size=4)
    batches = [torch.full((6, 2), float(n)) for n in range(40)]
    with contextlib.closing(TraceClient(job.address, job.transport)) as client:
        loader = job.loader(batches, checkpointed=False)
        got: list[torch.Tensor] = []
        for batch, labels in loader:
            if len(got) == 3:
                collected = client.begin(30.0)
                until(lambda: loader._service.recorder.on, "the order")
            got.append(batch)
            assert len(labels["logits"]) == 6
        assert [float(batch[0, 0]) for batch in got] == [float(n) for n in range(40)]
        stats = loader.stats()
        assert (stats["requeued"], stats["duplicates"], stats["failed"]) == (0, 0, 0)
        # The job ends in mid-trace: its members send what they have.
        loader.close()
        job.workers[0].drain()
        client.collect(collected, 30.0)
        assert collected.silent == [] and collected.took_s < 30.0
        document = timeline(processes_of(collected), collected.clock)
        steps = {e["name"] for e in document["traceEvents"] if e["name"].startswith("step with batch")}
        assert len(steps) >= 35


def test_two_at_once_and_whoever_dies_or_joins_meanwhile(job: LocalJob, loop: Loop) -> None:
    with (
        contextlib.closing(TraceClient(job.address, job.transport)) as client,
        contextlib.closing(TraceClient(job.address, job.transport)) as second,
    ):
        collected = client.begin(1.0)
        with pytest.raises(RefusedError, match="another trace is under way"):
            second.begin(1.0)
        job.teacher("identify")  # joins, and is not in it
        client.collect(collected, 1.0, patience_s=20.0)
        assert collected.silent == [] and len(collected.members) == 2
        # An operator that goes away leaves nothing behind that would keep others waiting.
        gone = TraceClient(job.address, job.transport)
        gone.begin(0.1)
        gone.close()

        def begun() -> Collected | None:
            with contextlib.suppress(RefusedError):
                return second.begin(0.1)
            return None

        again = until(begun, "another trace")
        second.collect(again, 0.1, patience_s=20.0)
        assert len(again.members) == 3 and again.silent == []
    before = loop.steps
    until(lambda: loop.steps > before, "a step after all of that")


def test_a_member_that_never_answers_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        running = Running(heartbeat_ttl_s=60.0)
        stack.callback(running.stop)
        deaf = student(stack, running.address, "deaf")
        deaf.register()
        asking = stack.enter_context(contextlib.closing(StatusClient(running.address)))
        until(lambda: asking.query().members, "the member")
        client = stack.enter_context(contextlib.closing(TraceClient(running.address)))
        collected = client.begin(0.01)
        client.collect(collected, 0.01, patience_s=0.2)
        assert collected.silent == ["deaf"] and collected.parts == []
        # It is still a member, and the coordinator goes on.
        assert [member.id for member in asking.query().members] == ["deaf"]


def test_nobody_is_there_to_trace() -> None:
    with contextlib.ExitStack() as stack:
        running = Running()
        stack.callback(running.stop)
        client = stack.enter_context(contextlib.closing(TraceClient(running.address)))
        with pytest.raises(RefusedError, match="nobody takes part in the job"):
            client.begin(1.0)


def test_no_coordinator_answers() -> None:
    client = TraceClient("tcp://127.0.0.1:9")
    with contextlib.closing(client), pytest.raises(CoordinatorUnreachableError, match="Is it running"):
        client.begin(1.0, timeout_s=0.2)


def test_an_output_that_cannot_be_written_is_found_out_before_anybody_records(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "trace.json", tmp_path):
        with pytest.raises(ConfigError, match="cannot be written"):
            write_trace("tcp://127.0.0.1:9", 1.0, 1, path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays_when_a_trace_fails(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("before")
    with contextlib.ExitStack() as stack:
        running = Running()
        stack.callback(running.stop)
        with pytest.raises(RefusedError):
            write_trace(running.address, 0.1, 1, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_the_command_writes_a_file_that_perfetto_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_job() as job:
        job.teacher("identify")
        loop = Loop(job)
        path = tmp_path / "trace.json"
        assert write_trace(job.address, 0.3, None, path) == 0
        loop.end()
    document = json.loads(path.read_text())
    assert document["displayTimeUnit"] == "ms" and document["otherData"]["silent_members"] == []
    for event in document["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "ts"} <= event.keys(), event
        assert event["ts"] >= -1e6
    said = capsys.readouterr().out
    assert "ui.perfetto.dev" in said and "2 processes" in said
