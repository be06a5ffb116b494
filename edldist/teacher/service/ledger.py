"""What a worker holds of whom, and what it asks them for. Pure: messages in, messages out.

A task is *waiting* from its arrival until the compute thread takes it, and *held* until its answer leaves, it
is given back, or its student is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edldist.teacher.passage import Passage
from edldist.teacher.service.batcher import Batcher
from edldist.teacher.service.demand import Demand
from edldist.teacher.tasks import HeldTask, Level, TaskInputs
from edldist.wire.messages import Idle, JobShare, Ping, Pong, Pull, Tasks, Wake

__all__ = ["Ledger"]


class Ledger:
    """The tasks of one worker. Not thread-safe; its service guards it.

    Args:
        batch_size: samples of a full forward pass.

    Attributes:
        tasks, samples: that were labelled so far.
    """

    def __init__(self, batch_size: int) -> None:
        self._batcher = Batcher(batch_size)
        self._demand = Demand(batch_size)
        # Invariant: what waits in _batcher is in here, and demand counts the cost of all that is.
        self._held: dict[tuple[str, int], HeldTask] = {}
        self.tasks = 0
        self.samples = 0

    def __len__(self) -> int:
        """Number of tasks that are held."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Number of tasks that no pass has taken yet."""
        return len(self._batcher)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, and nobody has anything to give."""
        return self._demand.idle

    @property
    def room(self) -> int:
        """Rows that may be held or asked for at once."""
        return self._demand.turns * self._demand.turn

    def levels(self) -> dict[str, Level]:
        """What was asked for and did not come yet, and what waits for a pass."""
        asked = Level(self._demand.asked, self._demand.asked_bytes)
        return {"receive": asked, "decode": Level.of(self._batcher)}

    def weighed(self, row_bytes: float) -> None:
        """So many bytes were a row's inputs and labels."""
        self._demand.weighed(row_bytes)

    def take(self) -> list[HeldTask]:
        """The tasks of the next forward pass; empty when none wait."""
        return self._batcher.take()

    def resize(self, batch_size: int) -> None:
        """Change the most samples of a forward pass from now on."""
        self._batcher.batch_size = self._demand.batch_size = batch_size

    def validate(self) -> None:
        """Check the invariants. For tests; raises AssertionError."""
        held: dict[str, int] = {}
        for (student, lease), task in self._held.items():
            assert (task.student, task.lease) == (student, lease), (student, lease, task)
            held[student] = held.get(student, 0) + task.rows
        for task in self._batcher:
            assert self._held.get((task.student, task.lease)) is task, f"{task} waits and is not held"
        self._demand.validate(held)

    # --- students -----------------------------------------------------------------------------------

    def connected(self, student: str, share: JobShare | None = None) -> None:
        """A student welcomed this worker: whatever it was owed before is void."""
        self._drop(student)
        self._demand.connected(student, share)

    def disconnected(self, student: str) -> None:
        """A student does not expect answers (any more)."""
        self._drop(student)
        self._demand.disconnected(student)

    def accept(
        self, student: str, message: Tasks, frames: Sequence[memoryview], passage: Passage | None = None
    ) -> None:
        """A student answered a pull with tasks, of which the first that a pass takes may be timed."""
        tasks = list(_unpacked(student, message, frames, passage))
        self._demand.granted(student, message.seq, sum(task.rows for task in tasks), message.buffered)
        for task in tasks:
            self._held[student, task.lease] = task
            self._batcher.add(task)

    def idled(self, student: str, message: Idle) -> bool:
        """A student has nothing now. False if that answers a pull of an earlier life of the link."""
        return self._demand.idled(student, message.seq, message.buffered)

    def woken(self, student: str, message: Wake) -> None:
        """A student has tasks again."""
        self._demand.woken(student, message.buffered)

    def view(self, student: str, ping: Ping) -> Pong:
        """What this worker knows of its dealings with a student."""
        pulled, asleep = self._demand.state(student)
        held = [lease for owner, lease in self._held if owner == student]
        return Pong(seq=ping.seq, held=held, pulled=pulled, asleep=asleep)

    def pulls(self) -> dict[str, list[Pull]]:
        """What to ask each student for now."""
        pulls: dict[str, list[Pull]] = {}
        while (order := self._demand.next_pull()) is not None:
            pulls.setdefault(order.student, []).append(Pull(seq=order.seq, room=order.room))
        return pulls

    # --- answers ------------------------------------------------------------------------------------

    def close(self, tasks: Iterable[HeldTask]) -> list[HeldTask]:
        """These are answered; those of them that their student still expects."""
        closed = [task for task in tasks if self._held.pop((task.student, task.lease), None) is not None]
        for task in closed:
            self._demand.finished(task.student, task.rows)
        return closed

    def labelled(self, tasks: Sequence[HeldTask], compute_s: float) -> None:
        """Tasks of one student were labelled, in a pass that took so long."""
        self._demand.paced(sum(task.rows for task in tasks), compute_s, sum([task.nbytes for task in tasks]))
        self.tasks += len(tasks)
        self.samples += sum(task.samples for task in tasks)

    # --- giving back ----------------------------------------------------------------------------------

    def give_back_waiting(self) -> dict[str, list[int]]:
        """Forget what no pass has taken yet; the leases of each student."""
        return self._leases(self._batcher.withdraw())

    def give_back_all(self) -> dict[str, list[int]]:
        """Forget everything, what a pass has taken too; the leases of each student."""
        self._batcher.withdraw()
        return self._leases(list(self._held.values()))

    def _leases(self, tasks: Iterable[HeldTask]) -> dict[str, list[int]]:
        leases: dict[str, list[int]] = {}
        for task in self.close(tasks):
            leases.setdefault(task.student, []).append(task.lease)
        return leases

    def _drop(self, student: str) -> None:
        self._batcher.withdraw(student)
        self.close([task for task in self._held.values() if task.student == student])


def _unpacked(
    student: str, message: Tasks, frames: Sequence[memoryview], passage: Passage | None
) -> Iterable[HeldTask]:
    """The tasks of a message, each with the frames of its group."""
    position = 0
    for group in message.groups:
        own = list(frames[position : position + len(group.tensors)])
        position += len(group.tensors)
        rows = sum(lease.cost for lease in group.leases)
        inputs = TaskInputs(rows, group.tensors, own, passage, group.codec)
        start = 0
        for lease in group.leases:
            yield HeldTask(
                *(student, lease.id, lease.samples, lease.cost, lease.own_pass),
                *(inputs, start, lease.labels, lease.compared),
            )
            start += lease.cost
