"""Which workers of one teacher group answer the same samples alike, and so label for this student. Pure.

Workers whose answers are alike are of one *mind*; its measure is the first answer of it. One mind labels: the
one of which the most workers have been at once, and of several such the oldest. So the first worker is the
measure until two others agree on something else; where one stands against one, nobody can tell which is
right, and the first goes on. All others are *put aside*, and asked again later::

    new --asked--> answers like the mind that labels ------> labels ---asked again---+
     |                |                                        ^  ^                  |
     |                +-- like another, or no other: aside ----+  |<-- alike --------+
     |                    (until most are of that mind)           |                  |
     |                +-- not like itself a moment before: aside -+<-- not alike ----+
     +-- fails: aside, if others could answer; else it labels, and its failures count as ever
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Apart", "Minds", "Turn"]


_PAUSES = 20.0
"""Times that a worker took to answer, in which it is not asked again."""


class Apart(NamedTuple):
    """How far apart two answers are.

    Attributes:
        ratio: of the difference to what is allowed: above 1, they are not alike.
        text: the difference, in words.
    """

    ratio: float
    text: str


class Turn(NamedTuple):
    """A worker's standing changed.

    Attributes:
        worker: its name.
        reason: why it is put aside; empty if it labels from now on.
        drifted: it was of the mind that labels, and has changed itself.
    """

    worker: str
    reason: str
    drifted: bool = False


@dataclass(eq=False, slots=True)
class _Mind:
    answer: Any
    first: str  # the worker whose answer it is, and what people call it
    called: str
    constant: bool
    members: dict[str, None] = field(default_factory=dict)  # those that are here
    most: int = 0  # members at once, ever


@dataclass(eq=False, slots=True)
class _Candidate:
    called: str
    due_at: float
    mind: _Mind | None = None
    failure: str = ""
    unsteady: str = ""
    excused: bool = False  # it failed on a question that nobody could answer, and was not asked another
    aside: str = ""
    labels: bool = False


class Minds:
    """The workers of one teacher group, as one student knows them.

    Args:
        apart: compares two answers.
        every_s: seconds between two questions to one worker.
    """

    def __init__(self, apart: Callable[[Any, Any], Apart], every_s: float) -> None:
        self._apart = apart
        self._every_s = every_s
        # Invariant: who is a member of a mind is a candidate, of that mind; minds without members have
        # labelled, and are kept while they are the measure.
        self._candidates: dict[str, _Candidate] = {}
        self._minds: list[_Mind] = []  # the oldest first

    def __contains__(self, worker: str) -> bool:
        return worker in self._candidates

    def __len__(self) -> int:
        return len(self._candidates)

    def join(self, worker: str, called: str, now: float) -> None:
        """A worker is here."""
        self._candidates[worker] = _Candidate(called, now)

    def forget(self, worker: str) -> None:
        """A worker is gone. What it answered stays a measure, if it was."""
        candidate = self._candidates.pop(worker, None)
        if candidate is not None:
            self._leave_mind(worker, candidate)

    def due(self, worker: str, now: float) -> bool:
        """Whether a worker is to be asked."""
        return now >= self._candidates[worker].due_at

    def asked(self, worker: str) -> None:
        """A worker was asked, and is not again before it has answered."""
        self._candidates[worker].due_at = math.inf

    def was_asked(self, worker: str, since: float, now: float) -> None:
        """A question to a worker is over: the next one comes after a while, a longer one if it took long."""
        self._candidates[worker].due_at = now + max(self._every_s, _PAUSES * (now - since))

    def ask_again(self, worker: str, now: float) -> None:
        """A question, or its answer, was lost."""
        self._candidates[worker].due_at = now

    def labels(self, worker: str) -> bool:
        """Whether a worker may label."""
        return self._candidates[worker].labels

    def aside(self, worker: str) -> str:
        """Why a worker was put aside; empty if it was not."""
        return self._candidates[worker].aside

    def is_of_a_mind(self, worker: str) -> bool:
        """Whether a worker answered, and like itself."""
        return self._candidates[worker].mind is not None

    def measured(self, worker: str, answer: Any) -> tuple[Any, Any]:
        """A worker's answer and that by which it was measured."""
        mind = self._candidates[worker].mind
        return answer, answer if mind is None else mind.answer

    def due_aside(self, now: float) -> Iterator[str]:
        """Workers that were put aside, and are to be asked again."""
        return (name for name, each in self._candidates.items() if each.aside and now >= each.due_at)

    @property
    def unanswered(self) -> bool:
        """Whether somebody failed on the question, and nobody has answered it: it may be a bad one."""
        return not self._minds and any(each.failure for each in self._candidates.values())

    def excuse(self, worker: str) -> None:
        """A worker labels without being asked, for want of a question that can be answered."""
        me = self._candidates[worker]
        if not me.aside and me.mind is None:
            me.labels = me.excused = True

    def renewed(self, now: float) -> None:
        """There is another question; what was answered to the former one counts no more.

        Whoever labelled labels on, and is asked now; who failed, when somebody has answered, or after a
        while. Who was put aside stays so until then.
        """
        self._minds.clear()
        for each in self._candidates.values():
            wait = bool(each.failure or each.aside)
            each.mind, each.failure, each.excused, each.unsteady = None, "", each.labels, each.aside
            each.due_at = now + self._every_s if wait else now

    def answered(self, worker: str, answer: Any, constant: bool, steady: Apart | None) -> list[Turn]:
        """A worker has answered.

        Args:
            answer: to be compared.
            constant: whether it is the same for samples that are not.
            steady: how far apart its two answers were, if it was asked twice.

        Returns:
            Whose standing changed.
        """
        me = self._candidates[worker]
        former = me.mind
        self._leave_mind(worker, me)
        me.failure = me.unsteady = ""
        me.excused = False
        if steady is not None and steady.ratio > 1:
            me.unsteady = (
                f"asked twice for the same samples, it answers two ways ({steady.text}): a model in training "
                "mode (dropout), or one whose labels depend on what else is in the pass"
            )
            return self._settle()
        mind = next((each for each in self._by_weight() if self._apart(answer, each.answer).ratio <= 1), None)
        if mind is None:
            mind = _Mind(answer, worker, me.called, constant)
            self._minds.append(mind)
        me.mind = mind
        mind.members[worker] = None
        mind.most = max(mind.most, len(mind.members))
        return self._settle(drifted=worker if former is not None and former is not mind else "")

    def failed(self, worker: str, error: str) -> list[Turn]:
        """A worker's model raised on the question; whose standing changed."""
        me = self._candidates[worker]
        self._leave_mind(worker, me)
        me.unsteady = ""
        me.excused = False
        me.failure = error or "it gave no reason"
        return self._settle()

    # --- inside -----------------------------------------------------------------------------------------

    def _by_weight(self) -> list[_Mind]:
        """The mind that labels, then the others."""
        return sorted(self._minds, key=lambda mind: (mind.constant, -mind.most))

    def _leave_mind(self, worker: str, candidate: _Candidate) -> None:
        mind = candidate.mind
        if mind is None:
            return
        del mind.members[worker]
        candidate.mind = None
        if not mind.members and mind is not self._by_weight()[0]:
            self._minds.remove(mind)

    def _settle(self, drifted: str = "") -> list[Turn]:
        """Who labels, and who does not, now."""
        order = self._by_weight()
        for mind in order[1:]:
            if not mind.members:
                self._minds.remove(mind)  # it was the measure, until now
        standing = order[0] if order else None
        turns = []
        for name, each in self._candidates.items():
            was, labelled = each.aside, each.labels
            each.aside = self._objection(name, each, standing)
            each.labels = not each.aside and (each.mind is not None or bool(each.failure) or each.excused)
            if each.excused and standing is not None:
                each.due_at = -math.inf
            if bool(was) != bool(each.aside) or each.labels != labelled:
                turns.append(Turn(name, each.aside, labelled and name == drifted))
        return turns

    def _objection(self, name: str, each: _Candidate, standing: _Mind | None) -> str:
        if each.unsteady:
            return each.unsteady
        if standing is None:
            return ""
        if each.failure:
            return f"its model fails on samples that {standing.called} labels: {each.failure}"
        if each.mind is None or each.mind is standing:
            return ""
        apart = self._apart(each.mind.answer, standing.answer).text
        if standing.first == name:
            return f"it does not answer any more what it answered itself at first: {apart}"
        others = len(standing.members)
        if standing.most > 1:
            agree = "" if others < 2 else f" (as {others - 1} more answer{'s' * (others > 2)})"
            return f"it differs from worker {standing.called}{agree}: {apart}"
        gone = "" if others else ", which has gone or changed since"
        return (
            f"it differs from worker {standing.called}{gone}: {apart}. Of two nobody can tell which is "
            f"right, and {standing.called} came first: start a third, which agrees with one of them, or end "
            "the wrong one, and restart the student"
        )

    def validate(self) -> None:
        """Check the invariants. For tests; raises AssertionError."""
        for name, each in self._candidates.items():
            assert each.mind is None or (name in each.mind.members and each.mind in self._minds)
            assert not (each.labels and each.aside)
        for mind in self._minds:
            assert all(self._candidates[name].mind is mind for name in mind.members)
            assert mind.most >= max(1, len(mind.members))
            assert mind.members or mind is self._by_weight()[0]
