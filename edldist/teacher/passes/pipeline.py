"""Forward passes between taken and answered: read, launched, landed, and what happens when one fails.

A pass goes through::

    reading --its inputs are there--> ready --a place on the device is free--> flying --> landed --> answered
       |                               |                                        |
       +-------------------------------+---------- an error --------------------+
                                            |
              several tasks: each again in a pass of its own, so that a bad one fails alone
              memory ran out: again in smaller pieces (fixed cuts: again by itself, then it fails)
              one task: its failure, with the model's own traceback (final where each attempt would end so)
              the model wrote to its inputs: all go back, to be sent again from pristine ones

Nothing here blocks but ``await_any``, and on a lane that computes at once, the computing.
Passes are launched in order; a pass that landed is answered whatever happens to those before it.
"""

from __future__ import annotations

import concurrent.futures
import logging
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from edldist.errors import ContractError, EdlDistError, EngineLostError, ModelError, UnlabelableError
from edldist.factories.factory import own_traceback
from edldist.observe.repeats import Repeats
from edldist.teacher.capacity import Capacity
from edldist.teacher.exchange import joined, parts_of
from edldist.teacher.model.teacher import is_out_of_memory
from edldist.teacher.passage import Passage
from edldist.teacher.passes.batch_size import BatchSizeSearch
from edldist.teacher.passes.forward import Computed, Labelling, PassTerms
from edldist.teacher.passes.lane import Flight, InputsLostError, Lane
from edldist.teacher.passes.stopwatch import Stage, Stopwatch
from edldist.teacher.tasks import Answer, HeldTask, Level, Outcome
from edldist.tracing.kinds import Kind
from edldist.wire.texts import even

__all__ = ["Pipeline", "Reader"]

logger = logging.getLogger(__name__)

_READ_AHEAD = 2
_WAIT_S = 0.25
_STAGES = {
    Kind.COPY_IN: "copy_in",
    Kind.FORWARD: "forward",
    Kind.ENCODE: "encode",
    Kind.COPY_OUT: "copy_out",
}
"""Of those that a lane notes, what they are called where they are timed."""

Parts = Sequence[dict[str, Tensor]]
AnswersTo = Callable[[list[HeldTask], dict[str, Tensor], float], list[Answer]]


class Reader(Protocol):
    """Turns tasks into inputs in the background."""

    def read(self, tasks: Sequence[HeldTask]) -> list[Future[dict[str, Tensor]]]:
        """Parts of the inputs of these tasks, in order."""
        ...


@dataclass(eq=False)
class _Pass:
    tasks: list[HeldTask]
    reads: list[Future[dict[str, Tensor]]] = field(default_factory=list)
    flight: Flight | None = None
    largest: int | None = None  # samples that the model gets at once
    exclusive: bool = False  # no other pass is in flight beside it
    launched: bool = False  # it is on the device, or on its way there
    number: int = 0  # in a trace; 0 for none
    began: float = 0.0
    stages: list[Stage] = field(default_factory=list)
    passage: Passage | None = None  # of one of the tasks, if that is timed

    @property
    def samples(self) -> int:
        return sum(task.rows for task in self.tasks)

    @property
    def fixed(self) -> bool:
        return self.tasks[0].own_pass

    @property
    def compared(self) -> bool:
        return self.tasks[0].compared

    def is_read(self) -> bool:
        return all(read.done() for read in self.reads)


class Pipeline:
    """The passes of one worker. Owned by the compute thread.

    Args:
        lane: of the model's device.
        forward: from inputs to packed labels.
        search: the batch size; told about every pass and every lack of memory.
        answers_to: tasks, their labels on the host and the seconds of compute, to answers.
        resize: called with a new batch size.
        capacity: told about every pass.
        reader: reads inputs that tasks only name, or None when they bring their own.
        watch: when the stages of a pass begin and end, while somebody traces.
        numbers: what records call students.

    Attributes:
        passes: that were launched so far.
        compute_s: seconds of compute in those that landed.
        shrinks: times that memory ran out and passes became smaller.
    """

    def __init__(
        self,
        lane: Lane,
        forward: Labelling,
        search: BatchSizeSearch,
        answers_to: AnswersTo,
        resize: Callable[[int], None],
        capacity: Capacity,
        reader: Reader | None = None,
        watch: Stopwatch | None = None,
        numbers: Callable[[str], int] = lambda student: 0,
    ) -> None:
        self._watch = watch or Stopwatch()
        self._tape = self._watch.tape
        self._numbers = numbers
        self._traced = 0
        self._lane = lane
        self._forward = forward
        self._search = search
        self._answers_to = answers_to
        self._resize = resize
        self._capacity = capacity
        self._reader = reader
        self._room = lane.depth + (_READ_AHEAD if reader is not None else 0)
        self._passes: list[_Pass] = []
        self._flying = 0
        self._outcomes: list[Outcome] = []
        self._broken: EdlDistError | None = None
        self._failures = Repeats(logger)
        self.passes = 0
        self.compute_s = 0.0
        self.shrinks = 0

    @property
    def has_room(self) -> bool:
        """Whether another pass may begin."""
        return len(self._passes) < self._room and self._broken is None

    @property
    def idle(self) -> bool:
        """Whether no pass is under way, nor anything to answer."""
        return not self._passes and not self._outcomes

    def levels(self) -> dict[str, Level]:
        """What was read ahead for the device, and what it has. For any thread."""
        passes = tuple(self._passes)
        return {
            "batch": Level.of(task for each in passes if not each.launched for task in each.tasks),
            "forward": Level.of(task for each in passes if each.launched for task in each.tasks),
        }

    def end(self) -> None:
        """Nothing more will be begun: let the lane go, and say what was left unsaid of failures."""
        self._lane.close()
        self._failures.end()

    def patience_s(self, idle_s: float) -> float:
        """How long to look out for new tasks before the next step: ``idle_s`` with nothing to do."""
        if not self._passes and not self._outcomes and self._broken is None:
            return idle_s
        following = self._following()
        busy = self._outcomes or self._broken or (following is not None and following.is_read())
        return 0.0 if busy else self._lane.poll_s

    def begin(self, tasks: list[HeldTask]) -> None:
        """Take on the tasks of one pass; inputs that they bring along fly at once if there is a place."""
        self._passes.append(self._begun(tasks))
        if self._reader is None:
            self._launch()

    def step(self) -> list[Outcome]:
        """Launch what is ready, and answer what has landed.

        Returns:
            What became of each pass that ended.

        Raises:
            EdlDistError: the device is of no use any more; the answers of its last passes were
                returned before.
        """
        progress = True
        while progress and self._passes and self._broken is None:
            self._launch()
            progress = False
            for each in tuple(self._passes):
                if each.flight is not None and self._broken is None:
                    progress |= self._land(each)
        outcomes, self._outcomes = self._outcomes, []
        if not outcomes and self._broken is not None:
            raise self._broken
        return outcomes

    def await_any(self) -> None:
        """Block until the oldest flight has landed, or some time for inputs that could be launched."""
        if self._outcomes or self._broken is not None:
            return
        following = self._following()
        flight = next((each.flight for each in self._passes if each.flight is not None), None)
        if following is None:
            if flight is not None:
                self._wait_for(flight)
            return
        concurrent.futures.wait(following.reads, _WAIT_S if flight is None else self._lane.poll_s)

    # --- stages -------------------------------------------------------------------------------------

    def _begun(self, tasks: list[HeldTask]) -> _Pass:
        begun = _Pass(tasks)
        for task in tasks:
            if task.inputs.passage is not None:
                self._time(begun, task.inputs.passage)
        begun.reads = self._reads(begun)
        if self._tape.on:
            self._traced += 1
            begun.number, begun.began = self._traced, self._tape.now()
            for task in tasks:
                if not task.lease % self._tape.sample:
                    peer, at = self._numbers(task.student), begun.began
                    self._tape.write(Kind.BATCHED, at, at, task.lease, task.samples, begun.number, peer)
        return begun

    def _time(self, begun: _Pass, passage: Passage) -> None:
        """A task that is to be timed was taken, if this is the first pass that takes it."""
        if begun.passage is None and not passage.taken and not begun.compared:
            begun.passage = passage
            passage.taken = True
            passage.began("decode", self._tape.now())
            passage.tasks, passage.rows = len(begun.tasks), begun.samples
            passage.samples = sum(task.samples for task in begun.tasks)

    def _timed(self, each: _Pass, answers: Sequence[Answer]) -> Passage | None:
        """The way of a task whose pass has landed, if it is timed."""
        if (passage := each.passage) is None:
            return None
        for kind, began, ended in (*each.stages, *self._watch.take()):
            if (stage := _STAGES.get(kind)) is not None:
                passage.began(stage, self._watch.seconds(began))
                passage.ended(stage, self._watch.seconds(ended))
        passage.bytes_out = sum(frame.nbytes for answer in answers for frame in answer.frames)
        return passage

    def _note(self, each: _Pass) -> None:
        """Write down a pass that is answered."""
        seconds, write, number = self._watch.seconds, self._tape.write, each.number
        for kind, began, ended in each.stages:
            write(kind, seconds(began), seconds(ended), number, each.samples)
        write(Kind.PASS, each.began, self._tape.now(), number, each.samples, self._search.size)

    def _reads(self, begun: _Pass) -> list[Future[dict[str, Tensor]]]:
        if self._reader is None:
            return []
        reads = self._reader.read(begun.tasks)
        if (passage := begun.passage) is not None:
            for read in reads:  # in the threads that read: the last one stands
                read.add_done_callback(lambda _: passage.ended("decode", self._tape.now()))
        return reads

    def _following(self) -> _Pass | None:
        """The pass that is to be launched next, if the lane has a place for it."""
        if self._flying >= min(self._lane.depth, len(self._passes)) or self._broken is not None:
            return None
        following = next(each for each in self._passes if each.flight is None)
        return None if following.exclusive and self._flying else following

    def _launch(self) -> None:
        while (following := self._following()) is not None and following.is_read():
            following.largest = None if following.fixed else self._search.size
            passage = following.passage
            self._watch.timed = passage is not None
            try:
                self._watch.take()  # those of a pass that failed
                with self._watch.stage(Kind.DECODE):
                    parts = self._inputs(following)
                    self._forward.vet(parts)
                if passage is not None:
                    passage.ended("batch", self._tape.now())
            except Exception as exc:
                self._split(following, exc)
                continue
            self.passes += 1
            following.launched = True
            try:
                following.flight = self._lane.launch(parts, self._compute(following))
            except Exception as exc:
                self._fail(following, exc)
            else:
                self._flying += 1
                following.stages = self._watch.take()

    def _compute(self, each: _Pass) -> Callable[..., Computed]:
        terms = PassTerms(each.largest, each.fixed, each.compared, each.tasks[0].codec)
        return lambda inputs: self._forward(inputs, terms)

    def _inputs(self, each: _Pass) -> Parts:
        if self._reader is None:
            parts: Parts = parts_of(each.tasks)
            if each.passage is not None:
                each.passage.ended("decode", self._tape.now())
        else:
            parts = [read.result() for read in each.reads]
        if each.passage is not None:
            each.passage.bytes_in = sum(tensor.nbytes for part in parts for tensor in part.values())
            each.passage.began("batch", self._tape.now())
        return [joined(parts)] if self._reader is None else even(parts)

    def _land(self, each: _Pass) -> bool:
        """Whether a flight is over, and its pass is answered or to be done again."""
        assert each.flight is not None
        try:
            if not each.flight.done():
                return False
            self._watch.timed = each.passage is not None
            labels, suspect, seconds = each.flight.labels()
            self.compute_s += seconds
            if suspect:
                self._forward.refuse(each.flight.computed)
            answers = self._answers_to(each.tasks, labels, seconds)
        except Exception as exc:
            self._flying -= 1
            each.flight = None
            self._fail(each, exc)
            return True
        self._flying -= 1
        self._passes.remove(each)
        self._outcomes.append(Outcome(answers, self._timed(each, answers)))
        if each.number and self._tape.on:
            self._note(each)
        if each.compared:
            return True
        samples = sum(task.samples for task in each.tasks)
        self._capacity.passed(samples, seconds, 1.0 if each.fixed else each.samples / self._search.size)
        if each.largest == self._search.size and self._search.passed(each.samples, seconds):
            self._resized()
        return True

    def _wait_for(self, flight: Flight) -> None:
        try:
            flight.wait()
        except Exception:
            logger.debug("a pass failed on the device", exc_info=True)  # _land meets it again

    # --- failures -----------------------------------------------------------------------------------

    def _replace(self, each: _Pass, by: list[_Pass]) -> None:
        at = self._passes.index(each)
        self._passes[at : at + 1] = by

    def _fail(self, each: _Pass, exc: Exception) -> None:
        each.launched = False
        if not self._lane.recover():
            self._give_up(each, exc)
        elif isinstance(exc, InputsLostError):
            # Once in a worker's life, and no task's fault: it gives the model copies from now on.
            logger.warning("%d samples go back: %s", each.samples, exc)
            self._replace(each, [])
            self._outcomes.append(Outcome([Answer([task], None) for task in each.tasks]))
        elif is_out_of_memory(exc):
            self._cut(each, exc)
        else:
            self._split(each, exc)

    def _split(self, each: _Pass, exc: Exception) -> None:
        """An error that one of the tasks may have caused: fail only that one."""
        if len(each.tasks) > 1:
            self._replace(each, [self._begun([task]) for task in each.tasks])
        else:
            final = isinstance(exc, ContractError)
            certain = final or isinstance(exc, UnlabelableError)
            self._answer_failure(each, _words(exc), final=final, certain=certain)

    def _cut(self, each: _Pass, exc: Exception) -> None:
        """Memory ran out: do it again in a way that needs less."""
        if each.fixed:
            if self._flying and not each.exclusive:
                each.exclusive = True
                return
            self._answer_failure(
                each,
                f"there is no memory for this task of {each.samples} samples, and a fixed cut is labelled in "
                "one forward pass, so that its labels do not depend on who computed them. Cut smaller: lower "
                "the teacher's batch_size, or task_size where the loader is made. The model said:\n"
                + own_traceback(exc),
            )
            return
        cut = min(each.samples, each.largest or each.samples)
        if cut > 1:
            self.shrinks += 1
            resized = self._search.out_of_memory(cut)
            logger.warning(
                "no memory for %d samples at once: passes have at most %d from now on", cut, self._search.size
            )
            if resized:
                self._resized()
        else:
            no_room = ModelError(
                "there is no memory for a single sample. Use a device with more memory, or lighter weights "
                "or inputs. The model said:\n" + own_traceback(exc)
            )
            self._split(each, no_room)

    def _give_up(self, each: _Pass, exc: Exception) -> None:
        """The device is broken, or the engine lost: blame this pass; the others' tasks go back on leaving."""
        words = _words(exc)
        self._broken = (
            exc
            if isinstance(exc, EngineLostError)
            else EdlDistError(f"the device is of no use after an error in a forward pass: {words}")
        )
        self._replace(each, [])
        self._outcomes.append(Outcome([Answer([task], None, error=words) for task in each.tasks]))

    def _answer_failure(self, each: _Pass, error: str, *, final: bool = False, certain: bool = False) -> None:
        *frames, what = error.rpartition("\n")
        samples = sum(task.samples for task in each.tasks)
        told = f":\n{error}" if frames[0] else ""
        self._failures.warn(f"a task failed: {what}", f" (of {samples} samples)", first=told)
        self._replace(each, [])
        answer = Answer(each.tasks, None, error=error, final=final, certain=certain)
        self._outcomes.append(Outcome([answer]))

    def _resized(self) -> None:
        self._resize(self._search.size)
        logger.info(
            "batch size %d%s", self._search.size, "" if self._search.settled else ", looking for a better one"
        )


def _words(exc: Exception) -> str:
    return str(exc) if isinstance(exc, EdlDistError) else "".join(traceback.format_exception(exc)).rstrip()
