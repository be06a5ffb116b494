"""What a student's I/O thread writes down of tasks while somebody traces."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.student.queue.outcomes import Grant
from edldist.student.service.peers import ConnectedWorker
from edldist.tracing.kinds import Kind
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import Labels, Message, Tasks
from edldist.wire.transport import Frames, Outgoing, payload

__all__ = ["IO", "LOOP", "QUEUE", "Trail"]

LOOP, QUEUE, IO = "training loop", "label queue", "I/O"
"""The tapes of a student."""


class Trail:
    """Tasks on their way to workers and back. Owned by the I/O thread.

    To be asked only while ``tape.on``.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.tape = recorder[IO]
        self._cut_at: float | None = None  # when the tasks were cut that are to be sent next

    def leased(self, worker: ConnectedWorker, grants: Sequence[Grant], since: float) -> None:
        """A pull was granted these, which are about to be sent."""
        tape, peer = self.tape, self._recorder.number(worker.name)
        self._cut_at = now = tape.now()
        for grant in grants:
            if not grant.lease % tape.sample:
                samples = grant.stop - grant.start
                tape.write(Kind.LEASED, since, now, grant.lease, samples, grant.batch, peer)

    def sent(self, worker: ConnectedWorker, message: Message, frames: Outgoing) -> None:
        """Tasks are in the socket's hands."""
        since, self._cut_at = self._cut_at, None
        leases = [len(group.leases) for group in message.groups] if isinstance(message, Tasks) else []
        nbytes = sum(memoryview(payload(frame)).nbytes for frame in frames)
        peer = self._recorder.number(worker.name)
        now = self.tape.now()
        self.tape.write(Kind.SENT, now if since is None else since, now, 0, sum(leases), nbytes, peer)

    def placed(self, worker: ConnectedWorker, message: Labels, frames: Frames) -> None:
        """Labels of a message that has just been read are where they belong, if they are wanted."""
        tape, peer = self.tape, self._recorder.number(worker.name)
        began, now = worker.last_heard, tape.now()
        tasks = 0
        for result in message.results:
            tasks += len(result.rows)
            for row in result.rows:
                if not row.lease % tape.sample:
                    tape.write(Kind.PLACED, began, now, row.lease, row.count, 0, peer)
        nbytes = sum(memoryview(frame).nbytes for frame in frames)
        tape.write(Kind.TAKEN, began, now, 0, tasks, nbytes, peer)
