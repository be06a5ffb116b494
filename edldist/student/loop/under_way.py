"""Batches that a loop made itself, from its asking for labels to its taking them. Pure, but for the queue.

::

                     its labels are there,
    request -> ASKED ---------------------> ANSWERED --the loop takes--> gone, and its labels are the loop's
                 |     or it is given up       |          them
                 |                             |
                 +-----------------------------+--the loop forgets it, or all: restored, closed--> gone

Answers come in the order of the requests, as the batches of a data loader do. Nobody reads ahead: a batch is
in the queue because the loop has asked for its labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from edldist.errors import StaleLabelsError
from edldist.student.batch.batch import OpenBatch
from edldist.student.service.delivery import Delivery

__all__ = ["Request", "UnderWay"]


class Request:
    """One batch of which the loop wants labels.

    Attributes:
        number: how many requests the loop made before.
        made_at: how many steps the loop had taken when it made it.
        answer: the batch with its labels, or with the reason why it has none; None until it is there.
    """

    __slots__ = ("answer", "made_at", "number")

    def __init__(self, number: int, made_at: int) -> None:
        self.number = number
        self.made_at = made_at
        self.answer: OpenBatch | None = None


class UnderWay:
    """The requests whose labels the loop has not taken, oldest first.

    A *step* is a request whose labels the loop takes, unless somebody else counts the steps (``counted``).
    The loop states how many of them may lie between a request and the taking of its labels, and is held to
    that: where takings are the steps, no more requests than that are made ahead of one; in any case labels
    that have become older are not handed out.

    Owned by the thread of the loop, but for ``forget``.

    Args:
        delivery: the queue.
        offer: puts a batch into it.
        staleness: so many steps, 0 or more.
        counted: whether the loop's steps are told by ``stepped``.

    Attributes:
        discarded: how many requests ended without an answer.
    """

    def __init__(
        self, delivery: Delivery, offer: Callable[[OpenBatch], None], staleness: int, counted: bool
    ) -> None:
        self._delivery = delivery
        self._offer = offer
        self._staleness = staleness
        self._counted = counted
        # Invariant: a batch of the queue has one of these as its mark, or one that was forgotten.
        self._requests: dict[Request, None] = {}
        self._forgotten: deque[Request] = deque()  # any thread appends
        self._made = self._steps = 0
        self.discarded = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, request: Request) -> bool:
        return request in self._requests

    def ask(self, make: Callable[[Request], OpenBatch]) -> Request:
        """Put a batch of the loop's into the queue.

        Args:
            make: makes it, with the request as its mark.

        Raises:
            StaleLabelsError: the labels of others have to be taken first. Nothing is asked for then.
            InputError: of ``make``, or a task would not fit into a frame. Nothing is asked for then.
        """
        self._let_go()
        if not self._counted and len(self._requests) > self._staleness:
            oldest = next(iter(self._requests))
            raise StaleLabelsError(
                f"request {self._made} was made while the labels of {len(self._requests)} others have not "
                f"been taken, from request {oldest.number} on: it would be learnt from "
                f"{len(self._requests)} steps later, and staleness={self._staleness}. Take the labels of "
                f"request {oldest.number} first, or state a larger staleness"
            )
        request = Request(self._made, self._steps)
        self._offer(make(request))
        self._made += 1
        self._requests[request] = None
        return request

    def arrived(self, request: Request) -> bool:
        """Whether a request is answered; takes what is due out of the queue, up to its answer."""
        self._let_go()
        while request.answer is None and self._collect():
            pass
        return request.answer is not None

    def take(self, request: Request) -> tuple[OpenBatch, int]:
        """Take an answer that has arrived.

        Returns:
            The batch, and after how many steps it was taken.

        Raises:
            StaleLabelsError: after more than the loop has stated. It is gone all the same.
        """
        batch = request.answer
        assert batch is not None
        self._drop(request)
        steps = self._steps - request.made_at
        if steps > self._staleness:
            raise StaleLabelsError(
                f"the labels of request {request.number} were taken {steps} steps after it was made, and "
                f"staleness={self._staleness}: what it holds is not what the loop would make now. Take "
                "labels before the next steps, in the order of the requests, or state a larger staleness"
            )
        if not self._counted and batch.failure is None:
            self._steps += 1
        return batch, steps

    def stepped(self) -> None:
        """The loop has taken a step."""
        self._steps += 1

    def forget(self, request: Request) -> None:
        """Nobody can ask for the labels of a request any more. Called in any thread, at any point of it."""
        self._forgotten.append(request)

    def clear(self) -> None:
        """Forget all of them."""
        self._delivery.clear()
        self.discarded += len(self._requests)
        for request in list(self._requests):
            self._drop(request)

    def _let_go(self) -> None:
        """Let go of what was forgotten."""
        while self._forgotten:
            request = self._forgotten.popleft()
            if request in self._requests:
                self.discarded += 1
                self._delivery.withdraw(request)
                self._delivery.deliver(request)  # at once, unless others are before it
                self._drop(request)

    def _collect(self) -> bool:
        """Take the head out of the queue, if it is finished, and hand it to its request."""
        batch = self._delivery.deliver()
        if batch is None:
            return False
        request, batch.mark = batch.mark, None
        if request in self._requests:
            request.answer = batch
        return True

    def _drop(self, request: Request) -> None:
        del self._requests[request]
        request.answer = None
