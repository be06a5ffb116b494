"""What a worker's I/O thread writes down of tasks while somebody traces."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.tracing.kinds import Kind
from edldist.tracing.recorder import Recorder
from edldist.wire.messages import Result, Tasks

__all__ = ["COMPUTE", "IO", "Trail"]

IO, COMPUTE = "I/O", "compute"
"""The tapes of a worker."""


class Trail:
    """Tasks on their way in, and labels on their way out. Owned by the I/O thread.

    To be asked only while ``tape.on``.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.tape = recorder[IO]

    def received(self, student: str, message: Tasks, frames: Sequence[memoryview], since: float) -> None:
        """Tasks that came are held now."""
        tape, peer = self.tape, self._recorder.number(student)
        now, count = tape.now(), 0
        for group in message.groups:
            count += len(group.leases)
            for lease in group.leases:
                if not lease.id % tape.sample:
                    tape.write(Kind.RECEIVED, since, now, lease.id, lease.samples, 0, peer)
        tape.write(Kind.TAKEN, since, now, 0, count, sum(frame.nbytes for frame in frames), peer)

    def returned(
        self, student: str, results: Sequence[Result], frames: Sequence[memoryview], since: float
    ) -> None:
        """Labels are in the socket's hands."""
        tape, peer = self.tape, self._recorder.number(student)
        now, count = tape.now(), 0
        for result in results:
            count += len(result.rows)
            for row in result.rows:
                if not row.lease % tape.sample:
                    tape.write(Kind.RETURNED, since, now, row.lease, row.count, 0, peer)
        tape.write(Kind.SENT, since, now, 0, count, sum(frame.nbytes for frame in frames), peer)
