"""What becomes of a loop's requests: their order, how old their labels may be, and those it forgets."""

from __future__ import annotations

import random

import pytest
import torch

from edldist.errors import ContractError, InputError, PoisonTaskError, StaleLabelsError
from edldist.student.batch.batch import OpenBatch
from edldist.student.loop.under_way import Request, UnderWay
from tests.unit.test_delivery import Desk


class Loop:
    """A desk, and the requests of a loop over it. A sample's label is its place in its batch."""

    def __init__(self, staleness: int = 0, *workers: str, counted: bool = False, **options) -> None:
        self.desk = Desk(*(workers or ("w",)), hand_on=True, low_watermark=0, high_watermark=1, **options)
        self.offered = 0
        self.way = UnderWay(self.desk.delivery, self._offer, staleness, counted)

    def _offer(self, batch: OpenBatch) -> None:
        self.desk.delivery.offer(batch)
        self.offered += 1

    def ask(self, size: int = 4) -> Request:
        return self.way.ask(lambda request: OpenBatch(None, {"x": torch.zeros(size)}, size, request))

    def label(self, room: int = 4, worker: str = "w") -> None:
        self.desk.label(worker, *self.desk.lease(worker, room))

    def take(self, request: Request) -> tuple[list[float], int]:
        assert self.way.arrived(request)
        batch, steps = self.way.take(request)
        return batch.labels()["t"]["logits"].tolist(), steps


def test_a_request_is_answered_once_it_is_labelled():
    loop = Loop()
    request = loop.ask(3)
    assert not loop.way.arrived(request) and len(loop.way) == 1
    loop.label()
    assert loop.take(request) == ([0, 1, 2], 0)
    assert request not in loop.way and len(loop.way) == 0


def test_answers_come_in_the_order_of_the_requests_whoever_is_labelled_first():
    loop = Loop(1, "a", "b")
    first, second = loop.ask(4), loop.ask(2)
    slow = loop.desk.lease("a", 4)
    loop.label(2, "b")
    assert not loop.way.arrived(second), "the first one is before it"
    loop.desk.label("a", *slow)
    assert loop.way.arrived(second)
    assert loop.take(second) == ([0, 1], 0) and loop.take(first) == ([0, 1, 2, 3], 1)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_no_more_requests_are_made_ahead_than_the_loop_has_stated(staleness):
    loop = Loop(staleness)
    made = [loop.ask() for _ in range(staleness + 1)]
    with pytest.raises(StaleLabelsError, match=rf"{staleness + 1} others .* staleness={staleness}\. Take"):
        loop.ask()
    assert loop.offered == staleness + 1, "nothing of the refused one was asked"
    for _ in range(20):
        loop.label()
        _, steps = loop.take(made.pop(0))
        assert steps <= staleness
        made.append(loop.ask())
    assert steps == staleness


def test_a_request_that_others_overtake_is_not_learnt_from_when_it_is_too_old():
    loop = Loop(1)
    first = loop.ask()
    for _ in range(2):
        other = loop.ask()
        loop.label(8)
        loop.take(other)
    assert loop.way.arrived(first)
    with pytest.raises(
        StaleLabelsError, match="request 0 were taken 2 steps after it was made, and stal.*=1"
    ):
        loop.way.take(first)
    assert first not in loop.way
    loop.ask()


def test_where_the_steps_are_counted_any_number_of_requests_is_made_between_two():
    loop = Loop(0, counted=True)
    made = [loop.ask(2) for _ in range(5)]
    loop.label(10)
    assert [loop.take(request)[1] for request in made[:4]] == [0] * 4
    loop.way.stepped()
    assert loop.way.arrived(made[4])
    with pytest.raises(StaleLabelsError, match="taken 1 steps after it was made"):
        loop.way.take(made[4])


def test_what_the_loop_forgets_is_given_to_nobody_and_holds_nothing():
    loop = Loop(2)
    first, second, third = loop.ask(), loop.ask(), loop.ask()
    leases = loop.desk.lease("w", 8)  # of the first and the second
    loop.way.forget(first)
    loop.way.forget(third)
    assert not loop.way.arrived(second)
    assert loop.desk.lease("w", 8) == []
    stats = loop.desk.delivery.stats()
    assert (stats["open"], len(loop.way), loop.way.discarded) == (2, 1, 2)
    loop.desk.label("w", *leases)
    assert loop.desk.delivery.stats()["duplicates"] == 1, "the labels of the first come too late"
    assert loop.take(second)[0] == [0, 1, 2, 3]
    fourth = loop.ask()
    loop.label()
    assert loop.take(fourth)[0] == [0, 1, 2, 3]
    assert loop.desk.delivery.stats()["open"] == 0
    loop.desk.delivery.validate()


def test_a_request_that_is_forgotten_makes_room_for_the_next():
    loop = Loop()
    for _ in range(5):
        loop.way.forget(loop.ask())
    request = loop.ask()
    assert loop.desk.delivery.stats()["open"] == 1, "each was let go of, labelled or not"
    loop.label()
    assert loop.take(request) == ([0, 1, 2, 3], 0)


def test_to_forget_what_was_taken_is_nothing():
    loop = Loop()
    request = loop.ask()
    loop.label()
    loop.take(request)
    loop.way.forget(request)
    loop.ask()
    assert loop.way.discarded == 0


def test_poison_is_the_answer_of_its_request_and_the_next_go_on():
    loop = Loop(1, max_attempts=1)
    bad, good = loop.ask(), loop.ask(2)
    (grant,) = loop.desk.lease("w", 4)
    loop.desk.delivery.fail("w", grant.lease, "boom")
    loop.label()
    assert loop.way.arrived(bad)
    batch, _ = loop.way.take(bad)
    assert isinstance(batch.failure, PoisonTaskError) and batch.failure.attempts == ["boom"]
    assert loop.take(good) == ([0, 1], 0), "what taught nothing is no step"


def test_an_error_that_every_attempt_would_repeat_is_an_answer_too():
    loop = Loop(1)
    bad, good = loop.ask(), loop.ask(2)
    (grant,) = loop.desk.lease("w", 4)
    loop.desk.delivery.fail("w", grant.lease, "TypeError: no such input", final=True)
    assert loop.way.arrived(bad)
    batch, _ = loop.way.take(bad)
    assert isinstance(batch.failure, ContractError)
    loop.label()
    assert loop.take(good)[0] == [0, 1]


def test_no_memory_for_labels_is_an_answer_too():
    def no_memory(shape, dtype):
        raise MemoryError

    loop = Loop()
    request = loop.way.ask(lambda made: OpenBatch(None, {"x": torch.zeros(4)}, 4, made, no_memory))
    loop.label()
    assert loop.way.arrived(request)
    batch, _ = loop.way.take(request)
    assert "labels of teacher 't'" in str(batch.failure)
    again = loop.ask()
    loop.label()
    assert loop.take(again)[0] == [0, 1, 2, 3]


def test_a_request_that_cannot_be_made_leaves_nothing():
    loop = Loop()

    def wrong(request: Request) -> OpenBatch:
        raise InputError("no such entry")

    with pytest.raises(InputError):
        loop.way.ask(wrong)
    request = loop.ask()
    assert request.number == 0 and len(loop.way) == 1


def test_to_clear_forgets_all_and_the_next_request_is_answered():
    loop = Loop(2)
    made = [loop.ask(), loop.ask()]
    loop.label(4)
    assert loop.way.arrived(made[0])
    loop.way.clear()
    assert not any(request in loop.way for request in made) and loop.way.discarded == 2
    assert made[0].answer is None, "it holds no labels any more"
    request = loop.ask(3)
    loop.label()
    assert loop.take(request) == ([0, 1, 2], 0)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_each_request_is_answered_once_with_its_own_labels(seed):
    """Workers label, fail, leave and are lost; the loop asks, takes in any order, and forgets."""
    chance = random.Random(seed)
    staleness = chance.randrange(4)
    loop = Loop(staleness, "a", "b", max_attempts=2)
    delivery, here, held = loop.desk.delivery, ["a", "b"], []
    open_requests: dict[Request, int] = {}
    made = answered = failed = forgotten = 0
    for number in range(300):
        loop.desk.clock.advance(0.01)
        what = chance.random()
        if what < 0.3:
            size = chance.randint(1, 5)
            try:
                open_requests[loop.ask(size)] = size
                made += 1
            except StaleLabelsError:
                assert len(loop.way) > staleness
        elif what < 0.5 and here:
            worker = chance.choice(here)
            held += [(worker, grant) for grant in loop.desk.lease(worker, chance.randint(1, 6))]
        elif what < 0.75 and held:
            worker, grant = held.pop(chance.randrange(len(held)))
            loop.desk.label(worker, grant)
        elif what < 0.78 and held:
            worker, grant = held.pop(chance.randrange(len(held)))
            delivery.fail(worker, grant.lease, "boom", final=chance.random() < 0.3)
        elif what < 0.82 and len(here) > 1:
            worker = here.pop(chance.randrange(len(here)))
            delivery.leave(worker)
            held = [(who, grant) for who, grant in held if who != worker]
            here.append(f"w{number}")
            delivery.join(here[-1], "t", forgiven=False)
        elif what < 0.85 and open_requests:
            request = chance.choice(list(open_requests))
            del open_requests[request]
            loop.way.forget(request)
            forgotten += 1
        elif open_requests:
            request = chance.choice(list(open_requests))
            if loop.way.arrived(request):
                size = open_requests.pop(request)
                try:
                    batch, _ = loop.way.take(request)
                except StaleLabelsError:
                    failed += 1
                else:
                    failed += batch.failure is not None
                    if batch.failure is None:
                        answered += 1
                        assert batch.labels()["t"]["logits"].tolist() == list(range(size))
        delivery.validate()
    for _ in range(50):
        for worker in here:
            loop.desk.label(worker, *(grant for who, grant in held if who == worker))
            loop.desk.label(worker, *loop.desk.lease(worker, 10))
        held = []
    assert all(loop.way.arrived(request) for request in open_requests)
    assert answered and made == answered + failed + forgotten + len(open_requests)
    loop.way.clear()
    assert delivery.stats()["open"] == 0 and loop.desk.lease(here[0], 9) == []
