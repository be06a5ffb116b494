"""Records of many processes as one picture: what each did, and the way of tasks and batches. Pure.

::

    student   training loop   | read 7 |        | step 5      | step 6      | step 7 |
                                  \\_                                       _/  (batch)
              I/O                   | send |                   | labels |_/
                                        \\_   (task)           _/
    worker    I/O                         | receive |     | send |
              forward                          \\_| pass 3 |_/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edldist.tracing.chrome import ChromeEvents
from edldist.tracing.clocks import Offset, offsets
from edldist.tracing.kinds import Kind
from edldist.tracing.process import TracedProcess
from edldist.tracing.tape import Record

__all__ = ["timeline"]

_LOOP, _QUEUE, _IO = 1, 2, 3
_STAGES = {
    Kind.DECODE: (4, "decode"),
    Kind.COPY_IN: (5, "copy in"),
    Kind.FORWARD: (6, "forward"),
    Kind.ENCODE: (7, "encode"),
    Kind.COPY_OUT: (8, "copy out"),
}
_NO_WORK = 2
_WAY = (Kind.LEASED, Kind.RECEIVED, Kind.BATCHED, Kind.RETURNED, Kind.PLACED)


def timeline(
    processes: Sequence[TracedProcess], coordinator: str, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A trace as a document of the Chrome trace format.

    Args:
        processes: of one trace.
        coordinator: name of the coordinator's clock.
        facts: more that the document should say of the trace.

    Returns:
        ``traceEvents``; ``otherData`` says how far the clocks were apart, and what was lost.
    """
    shown = sorted(processes, key=lambda each: (not each.is_student, each.group, each.rank or 0, each.id))
    reference = next((each.clock for each in shown if each.clock), coordinator)
    known = offsets(shown, coordinator, reference)
    return _Picture(shown, known).document(dict(facts or {}))


class _Picture:
    """Draws one trace."""

    def __init__(self, processes: Sequence[TracedProcess], known: dict[str, Offset]) -> None:
        self._processes = processes
        self._known = known
        self._events = ChromeEvents()
        self._pids = {process.id: number for number, process in enumerate(processes, 1)}
        self._shifts = {
            process.id: known.get(process.clock, Offset(0.0, 0.0)).seconds for process in processes
        }
        starts = [
            record.start - self._shifts[process.id]
            for process in processes
            for records in process.records.values()
            for record in records
        ]
        self._zero = min(starts, default=0.0)

    def document(self, facts: dict[str, Any]) -> dict[str, Any]:
        students = {each.id: each for each in self._processes if each.is_student}
        for process in self._processes:
            self._name(process)
            if process.is_student:
                self._student(process)
            else:
                self._worker(process)
        self._tasks(students)
        clocks = {
            process.id: {
                "ahead_s": round(offset.seconds, 9),
                "error_s": round(offset.error_s, 9),
            }
            if (offset := self._known.get(process.clock)) is not None
            else "unknown"
            for process in self._processes
        }
        lost = {process.id: process.lost for process in self._processes if any(process.lost.values())}
        return {
            "displayTimeUnit": "ms",
            "otherData": facts | {"clocks": clocks, "lost_records": lost},
            "traceEvents": self._events.events,
        }

    # --- rows ------------------------------------------------------------------------------------------

    def _name(self, process: TracedProcess) -> None:
        pid = self._pids[process.id]
        labels = f"{process.id} on {process.host}, process {process.pid}"
        self._events.process(pid, process.called, labels)
        rows = {_IO: "I/O"}
        if process.is_student:
            rows |= {_LOOP: "training loop", _QUEUE: "label queue"}
        else:
            rows |= {1: "I/O", _NO_WORK: "no work"} | dict(_STAGES.values())
            del rows[_IO]
        for tid, name in rows.items():
            self._events.row(pid, tid, name)

    def _io(self, process: TracedProcess) -> int:
        return _IO if process.is_student else 1

    def _us(self, process: TracedProcess, at: float) -> float:
        """A time of a process as microseconds of the picture."""
        return (at - self._shifts[process.id] - self._zero) * 1e6

    def _span(self, process: TracedProcess, tid: int, name: str, record: Record, **args: Any) -> None:
        times = self._us(process, record.start), self._us(process, record.end)
        self._events.span(self._pids[process.id], tid, name, *times, args)

    def _messages(self, process: TracedProcess, out: str, came: str) -> None:
        for kind, what in ((Kind.SENT, out), (Kind.TAKEN, came)):
            for record in process.of(kind):
                peer, nbytes = process.peer(record), record.more
                named = f"{what} {record.amount} task" + ("" if record.amount == 1 else "s")
                self._span(process, self._io(process), named, record, peer=peer, bytes=nbytes)

    # --- a student ---------------------------------------------------------------------------------------

    def _student(self, process: TracedProcess) -> None:
        for kind, name in ((Kind.READ, "read batch"), (Kind.STEP, "step with batch")):
            for record in process.of(kind):
                self._span(process, _LOOP, f"{name} {record.key}", record, samples=record.amount)
        for record in process.of(Kind.STARVED):
            self._span(process, _LOOP, "starved: waits for labels", record)
        for record in process.of(Kind.FULL):
            self._span(process, _QUEUE, "full: backpressure", record)
        for kind, name in ((Kind.QUEUED, "queued"), (Kind.DELIVERED, "delivered")):
            for record in process.of(kind):
                at = self._us(process, record.start)
                args = {"samples": record.amount} | ({"bytes": record.more} if record.more else {})
                self._events.moment(self._pids[process.id], _QUEUE, f"{name} {record.key}", at, args)
        cuts: dict[tuple[float, float], list[Record]] = {}
        for record in process.of(Kind.LEASED):
            cuts.setdefault((record.start, record.end), []).append(record)
        for records in cuts.values():
            batches = sorted({record.more for record in records})
            self._span(process, _IO, "cut tasks", records[0], tasks=len(records), batches=batches)
        self._messages(process, "send", "labels of")
        self._batches(process)

    def _batches(self, process: TracedProcess) -> None:
        """What each batch waits for, and the arrow from its reading to its step."""
        placed = {record.key: record for record in process.of(Kind.PLACED)}
        leased: dict[int, list[Record]] = {}
        for record in process.of(Kind.LEASED):
            leased.setdefault(record.more, []).append(record)
        read = {record.key: record for record in process.of(Kind.READ)}
        delivered = {record.key: record for record in process.of(Kind.DELIVERED)}
        steps = {record.key: record for record in process.of(Kind.STEP)}
        pid = self._pids[process.id]
        for queued in process.of(Kind.QUEUED):
            batch = queued.key
            tasks = leased.get(batch, [])
            answered = [placed[task.key] for task in tasks if task.key in placed]
            marks: list[tuple[str, float]] = [("waits for a worker", queued.start)]
            if tasks:
                marks.append(("at workers", min(task.end for task in tasks)))
            if answered and batch in delivered:
                marks.append(("labelled: waits for its turn", max(each.end for each in answered)))
            if batch in delivered:
                marks.append(("with the loop", delivered[batch].start))
            ends = [at for _, at in marks] + ([steps[batch].end] if batch in steps else [])
            key, end = f"{process.id}/{batch}", max(ends)
            args = {"samples": queued.amount, "bytes": queued.more, "tasks": len(tasks)}
            times = self._us(process, queued.start), self._us(process, end)
            self._events.life(pid, "batch", key, f"batch {batch}", *times, args)
            for (name, start), (_, until) in zip(marks, [*marks[1:], ("", end)], strict=True):
                if until > start:
                    part = self._us(process, start), self._us(process, until)
                    self._events.life(pid, "batch", key, name, *part, {})
            stops = [(_LOOP, read[batch].start)] if batch in read else []
            stops += [(_IO, min(task.end for task in tasks))] if tasks else []
            stops += [(_IO, max(each.start for each in answered))] if answered else []
            stops += [(_LOOP, steps[batch].start)] if batch in steps else []
            self._events.flow("batch", [(pid, tid, self._us(process, at)) for tid, at in stops])

    # --- a worker ----------------------------------------------------------------------------------------

    def _worker(self, process: TracedProcess) -> None:
        received = {(process.peer(each), each.key): each.end for each in process.of(Kind.RECEIVED)}
        waits: dict[int, list[float]] = {}
        for record in process.of(Kind.BATCHED):
            came = received.get((process.peer(record), record.key))
            waits.setdefault(record.more, []).extend([] if came is None else [max(0.0, record.start - came)])
        for record in process.of(Kind.PASS):
            waited = waits.get(record.key, [])
            args: dict[str, Any] = {"samples": record.amount, "samples_of_a_full_pass": record.more}
            if waited:
                args |= {"tasks": len(waited), "longest_wait_ms": round(max(waited) * 1e3, 3)}
            times = self._us(process, record.start), self._us(process, record.end)
            key = f"{process.id}/{record.key}"
            self._events.life(self._pids[process.id], "pass", key, f"pass {record.key}", *times, args)
        for kind, (tid, name) in _STAGES.items():
            for record in process.of(kind):
                self._span(process, tid, f"{name} {record.key}", record, samples=record.amount)
        for record in process.of(Kind.IDLE):
            self._span(process, _NO_WORK, "no work", record)
        self._messages(process, "labels of", "receive")

    # --- between processes ---------------------------------------------------------------------------------

    def _tasks(self, students: Mapping[str, TracedProcess]) -> None:
        """The arrow of each task: sent, received, computed, returned, placed."""
        stops: dict[tuple[str, int], dict[Kind, tuple[int, int, float]]] = {}
        for process in self._processes:
            pid, io = self._pids[process.id], self._io(process)
            forward = {record.key: record.start for record in process.of(Kind.FORWARD)}
            for kind in _WAY:
                for student, record in process.tasks(kind, students):
                    stop = (pid, io, self._us(process, record.end if kind is Kind.LEASED else record.start))
                    if kind is Kind.BATCHED:
                        if record.more not in forward:
                            continue
                        stop = (pid, _STAGES[Kind.FORWARD][0], self._us(process, forward[record.more]))
                    stops.setdefault((student, record.key), {})[kind] = stop
        for task in stops.values():
            self._events.flow("task", [task[kind] for kind in _WAY if kind in task])
