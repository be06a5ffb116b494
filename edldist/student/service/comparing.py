"""Asks workers about the same samples, and does without those whose answers are not those of their group.

A worker that pulls for the first time gets no tasks but the question of its group, twice: all of it, and the
first half once more. It labels once it has answered, unless it is put aside (``queue.minds``). Later it is
asked now and then, in between its tasks.

What happens when a party dies: a worker's answer is not waited for by anybody else; with the student the
question dies, and another one is asked by the next; the coordinator carries none of it. Each rank asks for
itself.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edldist.clock import Clock
from edldist.errors import EdlDistError, LabelError
from edldist.labels.comparison import Compared, Difference, differences, is_constant
from edldist.labels.distributions import Part
from edldist.labels.packing import Codec
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.minds import Apart, Minds, Turn
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.events import Events, last_line
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker, Peers
from edldist.student.service.question import Question
from edldist.wire.messages import Idle, LeaseGroup, Message, Pull, Result, Scalar, Tasks
from edldist.wire.tensors import unpack
from edldist.wire.transport import Frames, Outgoing, Piece, Sender

__all__ = ["Comparing"]

logger = logging.getLogger(__name__)

_NO_LEASES: frozenset[int] = frozenset()
_MOST_LOST = 2
_FIRST_NUMBER = 1 << 60
"""Leases of questions count up from here, where no task's are."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A question on its way to a worker, and what came of it."""

    question: Question
    leases: list[int]
    at: float
    late_at: float  # from when on it speaks against the question that there is no answer; then infinite
    answers: dict[int, Mapping[str, Any]] = field(default_factory=dict)


class Comparing:
    """The workers of all teachers, as far as their answers are alike.

    The I/O thread owns it; the training thread calls ``see`` alone.

    Args:
        options: how the student takes part; nobody is asked without ``agreement``.
        shared: its delivery, its workers, and what it tells the coordinator.
        codec: that of a group.
        send: to a worker.
    """

    def __init__(
        self,
        options: ServiceOptions,
        shared: tuple[Delivery, Peers, Events],
        clock: Clock,
        codec: Callable[[str], Codec],
        send: Callable[[Sender, Message], None],
    ) -> None:
        self._bounds = bounds = options.agreement
        self._options = options
        self._delivery, self._peers, self._events = shared
        self._clock = clock
        self._codec = codec
        self._send = send
        self._teachers = () if bounds is None else options.teachers
        # By teacher and version: those whose versions follow each other differ on purpose.
        self._minds: dict[tuple[str, str], Minds] = {}
        # The training thread's word: what is asked of each group from now on, and who needs another.
        self._questions: dict[str, Question] = {}
        self._stale: set[str] = set()
        self._current: dict[str, Question] = {}
        self._lost: Counter[str] = Counter()  # workers in a row that did not live to answer
        self._numbers = itertools.count(_FIRST_NUMBER)
        # Invariant: of workers that are here, by key; their leases are none of the queue's.
        self._asked: dict[str, _Asked] = {}
        # Labels that the loop had of a worker when it last answered like those that label.
        self._consumed: dict[str, int] = {}
        self._largest = {"nats": 0.0, "relative": 0.0}
        self._doubtful = 0

    def see(self, batch: OpenBatch) -> None:
        """A batch is about to be offered: keep samples of it to ask about, if there are none."""
        for teacher in self._teachers:
            if teacher not in self._questions or teacher in self._stale:
                inputs = batch.inputs_of(teacher)
                if inputs.wanted.runs:
                    self._questions[teacher] = Question(
                        inputs, self._options.flow.fixed, self._options.max_frame_bytes
                    )
                    self._stale.discard(teacher)

    def stats(self) -> dict[str, Scalar]:
        """Figures of what was compared."""
        if self._bounds is None:
            return {}
        return {
            "differs_nats": round(self._largest["nats"], 9),
            "differs_relative": round(self._largest["relative"], 9),
            "aside": sum(bool(worker.aside) for worker in self._peers),
            "doubtful": self._doubtful,
        }

    # --- workers come and go ------------------------------------------------------------------------

    def join(self, worker: ConnectedWorker) -> None:
        if self._bounds is not None:
            minds = self._minds.setdefault(self._kind(worker), Minds(self._apart, self._bounds.every_s))
            minds.join(worker.key, worker.name, self._clock.monotonic())

    def _kind(self, worker: ConnectedWorker) -> tuple[str, str]:
        rolling = worker.teacher in self._options.versions
        return worker.teacher, worker.fingerprint.version if rolling else ""

    def _of_teacher(self, teacher: str) -> list[Minds]:
        return [minds for (name, _), minds in self._minds.items() if name == teacher]

    def forget(self, worker: ConnectedWorker, lost: bool) -> None:
        """A worker is gone; ``lost``: it was killed, for all that is known, or silent."""
        if (minds := self._minds.get(self._kind(worker))) is not None:
            minds.forget(worker.key)
            if not minds and len(self._of_teacher(worker.teacher)) > 1:
                del self._minds[self._kind(worker)]  # a version that has gone
            asked = self._asked.pop(worker.key, None)
            self._consumed.pop(worker.key, None)
            if lost and asked is not None:
                self._suspect(worker.teacher, asked)

    def _suspect(self, teacher: str, asked: _Asked) -> None:
        """A worker did not answer: what it was asked may kill, or hang, whoever computes it."""
        if asked.question is self._current.get(teacher) and asked.late_at < math.inf:
            asked.late_at = math.inf
            self._lost[teacher] += 1
            if self._lost[teacher] >= _MOST_LOST:
                self._stale.add(teacher)

    # --- asking -------------------------------------------------------------------------------------

    def leases_of(self, worker: ConnectedWorker) -> frozenset[int]:
        """The leases of a question that a worker has not answered."""
        asked = self._asked.get(worker.key)
        return _NO_LEASES if asked is None else frozenset(asked.leases) - asked.answers.keys()

    def reply(self, worker: ConnectedWorker, pull: Pull) -> tuple[Message, Outgoing] | None:
        """What a worker that pulls gets instead of tasks: a question, or nothing; None if it gets tasks."""
        buffered = self._delivery.buffered
        if (question := self._ask(worker)) is not None:
            groups, frames = question
            return Tasks(seq=pull.seq, groups=groups, buffered=buffered), frames
        if not self._waits(worker):
            return None
        self._delivery.quarantine(worker.key, pull.room)
        return Idle(seq=pull.seq, buffered=buffered, quarantine=worker.aside), ()

    def _ask(self, worker: ConnectedWorker) -> tuple[list[LeaseGroup], list[memoryview | Piece]] | None:
        minds, question = self._minds.get(self._kind(worker)), self._questions.get(worker.teacher)
        if minds is None or question is None or worker.key in self._asked:
            return None
        now = self._clock.monotonic()
        if question is not self._current.get(worker.teacher):
            if worker.teacher in self._current:
                for each in self._of_teacher(worker.teacher):
                    each.renewed(now)
            self._current[worker.teacher] = question
            self._lost[worker.teacher] = 0
        if worker.teacher in self._stale:
            minds.excuse(worker.key)
            return None
        if not minds.due(worker.key, now):
            return None
        minds.asked(worker.key)
        times = 1 if minds.labels(worker.key) and minds.is_of_a_mind(worker.key) else 2
        leases = [next(self._numbers) for _ in range(times)]
        asked = _Asked(question, leases, now, now + self._options.flow.first_deadline_s)
        self._asked[worker.key] = asked
        return question.ask(asked.leases)

    def _waits(self, worker: ConnectedWorker) -> bool:
        """Whether a worker gets no tasks, because it was put aside, or has yet to answer."""
        minds = self._minds.get(self._kind(worker))
        return minds is not None and worker.teacher in self._questions and not minds.labels(worker.key)

    def look(self) -> None:
        """See who has not answered for long; those that are to be asked again may be woken."""
        now = self._clock.monotonic()
        for key, asked in self._asked.items():
            if now >= asked.late_at and (worker := self._peers.find(key)) is not None:
                logger.warning(
                    "worker %s of teacher %r has not answered what all its group are asked for %.0f s",
                    *(worker.name, worker.teacher, self._options.flow.first_deadline_s),
                )
                self._suspect(worker.teacher, asked)
        for minds in self._minds.values():
            for key in list(minds.due_aside(now)):
                if key not in self._asked:
                    self._delivery.parole(key)

    def lost(self, worker: ConnectedWorker, leases: Collection[int]) -> None:
        """A worker gives leases back, or they were lost on their way: it is asked again."""
        if not self.leases_of(worker).isdisjoint(leases):
            self._ask_again(worker)

    def _ask_again(self, worker: ConnectedWorker) -> None:
        del self._asked[worker.key]
        self._minds[self._kind(worker)].ask_again(worker.key, self._clock.monotonic())
        self._delivery.parole(worker.key)

    # --- answers ------------------------------------------------------------------------------------

    def failed(self, worker: ConnectedWorker, lease: int, error: str) -> bool:
        """A worker's model raised; whether that was on a question."""
        if lease not in self.leases_of(worker):
            return self._is_late(lease)
        self._lost[worker.teacher] = 0
        if self._asked[worker.key].question is not self._current[worker.teacher]:
            self._ask_again(worker)
            return True
        asked = self._asked.pop(worker.key)
        minds = self._minds[self._kind(worker)]
        minds.was_asked(worker.key, asked.at, self._clock.monotonic())
        turns = minds.failed(worker.key, last_line(error))
        if all(each.unanswered for each in self._of_teacher(worker.teacher) if each):
            self._stale.add(worker.teacher)
        self._heed(worker.teacher, turns)
        return True

    def _is_late(self, lease: int) -> bool:
        """Whether a lease was that of a question, which nobody waits for any more."""
        if late := lease >= _FIRST_NUMBER:
            self._delivery.count_late(1)
        return late

    def answered(self, worker: ConnectedWorker, result: Result, frames: Frames) -> bool:
        """A result came; whether it is the answer to a question."""
        lease = result.rows[0].lease
        if lease not in self.leases_of(worker):
            return self._is_late(lease)
        self._lost[worker.teacher] = 0
        asked = self._asked[worker.key]
        try:
            came = sum(row.count for row in result.rows)
            wanted = asked.question.rows[asked.leases.index(lease)]
            if len(result.rows) > 1 or came != wanted:
                raise LabelError(f"{came} rows came, and {wanted} were asked for")
            asked.answers[lease] = self._decoded(worker, result, frames, came)
        except EdlDistError as exc:
            self.failed(worker, lease, f"worker {worker.name}: {exc}")
            return True
        if len(asked.answers) == len(asked.leases):
            if asked.question is not self._current[worker.teacher]:
                self._ask_again(worker)
                return True
            del self._asked[worker.key]
            self._judge(worker, asked)
        return True

    def _decoded(
        self, worker: ConnectedWorker, result: Result, frames: Frames, rows: int
    ) -> Mapping[str, Any]:
        tensors = unpack(result.tensors, [memoryview(frame) for frame in frames])
        if any(tensor.dim() < 1 or tensor.shape[0] != rows for tensor in tensors.values()):
            raise LabelError(f"outputs {result.tensors} for {rows} rows")
        own = {name: tensor.clone() for name, tensor in tensors.items()}
        parts = [Part.parse(name) for name in own]
        codecs = [part.part for part in parts if part is not None]
        # A worker that fronts an engine has no more than what its codec sends.
        codec = self._codec(worker.teacher) if codecs and Compared.part not in codecs else Compared()
        return codec.decode(own)

    def _judge(self, worker: ConnectedWorker, asked: _Asked) -> None:
        answers = [asked.answers[lease] for lease in asked.leases]
        minds = self._minds[self._kind(worker)]
        minds.was_asked(worker.key, asked.at, self._clock.monotonic())
        constant = asked.question.varied and is_constant(answers[0])
        if constant and not worker.constant:
            worker.constant = True
            logger.warning(
                "worker %s on %s of teacher %r answers the same for %d samples that differ: a constant "
                "teaches nothing; look at its weights and its inputs",
                *(worker.name, worker.host or "its host", worker.teacher, asked.question.samples),
            )
        steady = None
        if len(answers) > 1:
            steady = self._apart(answers[1], answers[0], asked.question.rows[1])
        turns = minds.answered(worker.key, answers[0], constant, steady)
        if minds.labels(worker.key):
            self._note(minds.measured(worker.key, answers[0]))
            self._consumed[worker.key] = self._delivery.consumed(worker.key)
            if worker.keep is not None:
                worker.keep.agreed()
        self._heed(worker.teacher, turns)

    def _apart(self, mine: Mapping[str, Any], its: Mapping[str, Any], rows: int | None = None) -> Apart:
        assert self._bounds is not None
        found = [(each, self._ratio(each)) for each in differences(mine, its, rows)]
        worst, ratio = max(found, key=lambda pair: pair[1], default=(Difference("", 0.0, "nats"), 0.0))
        bound = "max_nats" if worst.unit == "nats" else "max_relative"
        most = getattr(self._bounds, bound)
        return Apart(ratio, worst.why or f"{worst}, and agreement.{bound} allows {most:g}")

    def _ratio(self, difference: Difference) -> float:
        assert self._bounds is not None
        nats = difference.unit == "nats"
        return difference.value / (self._bounds.max_nats if nats else self._bounds.max_relative)

    def _note(self, pair: tuple[Any, Any]) -> None:
        """Remember the largest difference among those that label."""
        for each in differences(*pair):
            self._largest[each.unit] = max(self._largest[each.unit], each.value)

    # --- what follows -------------------------------------------------------------------------------

    def _heed(self, teacher: str, turns: Sequence[Turn]) -> None:
        for turn in turns:
            worker = self._peers.find(turn.worker)
            if worker is None:
                continue  # it proved to be dead when it, or another one, was told
            if turn.reason:
                self._put_aside(worker, turn)
                continue
            if worker.aside:
                worker.aside = ""
                self._events.readmitted(worker.name, teacher)
                logger.info("worker %s answers as the others of teacher %r again", worker.name, teacher)
            self._delivery.parole(worker.key)

    def _put_aside(self, worker: ConnectedWorker, turn: Turn) -> None:
        worker.aside = turn.reason
        taken = self._delivery.put_aside(worker.key, worker.room)
        consumed = taken.consumed - (self._consumed.get(worker.key, 0) if turn.drifted else 0)
        self._doubtful += consumed
        withdrawn = 0 if worker.keep is None else worker.keep.withdraw(everything=not turn.drifted)
        since = " since it last agreed" if turn.drifted else ""
        logger.warning(
            "worker %s on %s of teacher %r is put aside: %s. Of what it has labelled, %d samples are asked "
            "of others, and %d that the loop has had%s are in doubt. Start it with the weights of the "
            "others; if it only rounds otherwise, raise that bound",
            *(worker.name, worker.host or "its host", worker.teacher, turn.reason),
            *(taken.samples, consumed, since),
        )
        if withdrawn:
            logger.warning("labels of %d samples by worker %s go from the store", withdrawn, worker.name)
        self._events.put_aside(worker, turn.reason, taken.samples, consumed)
        self._events.requeued(taken.returned, worker.name, worker.teacher, "it was put aside")
        # It may have been asleep already, and would not ask again.
        self._send(worker.peer, Idle(seq=worker.pull_seen, buffered=0, quarantine=turn.reason))
