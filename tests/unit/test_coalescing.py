"""Equal samples under way: one is labelled, the others get its labels, and nobody waits for a lost leader."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.student.queue.coalescing import Coalescing, Follower, Place
from edldist.student.queue.wanted import Wanted
from tests.unit.queues import joined, keys, offered


def machine() -> tuple[Coalescing, Counter[int]]:
    waits: Counter[int] = Counter()

    def note(batch: int, change: int) -> None:
        waits[batch] += change

    return Coalescing(note), waits


def offer(coalescing: Coalescing, batch: int, text: str) -> str:
    """Offer a batch of such keys; those of them that workers are to get."""
    wanted = coalescing.offer("t", batch, Wanted.whole(len(text)), keys(text))
    return "".join(text[start:stop] for start, stop in wanted.runs)


def runs(parts: list[tuple[int, Wanted]]) -> dict[int, tuple[tuple[int, int], ...]]:
    return {batch: wanted.runs for batch, wanted in parts}


def test_the_first_of_equal_samples_leads_and_the_others_get_its_labels() -> None:
    coalescing, waits = machine()
    assert offer(coalescing, 0, "abca") == "abc"
    assert offer(coalescing, 1, "bd") == "d"
    assert waits == {0: 1, 1: 1}, "batches with followers wait for somebody"
    assert coalescing.followers("t", 0, 0, 2) == [
        Follower(Place(0, 3), Place(0, 0)),
        Follower(Place(1, 0), Place(0, 1)),
    ]
    assert runs(coalescing.labelled("t", 0, 0, 3)) == {0: ((3, 4),), 1: ((0, 1),)}
    assert waits == {0: 0, 1: 0} and coalescing.coalesced == 2
    assert offer(coalescing, 2, "ad") == "a", "what is labelled leads nobody; d is under way"


def test_teachers_know_nothing_of_each_other() -> None:
    coalescing, _ = machine()
    for teacher in "tu":
        assert coalescing.offer(teacher, 0, Wanted.whole(1), [b"a"]).missing == 1


def test_the_first_follower_of_a_leader_that_is_lost_leads_the_others() -> None:
    coalescing, _ = machine()
    for batch in range(3):
        offer(coalescing, batch, "ab")
    assert runs(coalescing.drop("t", 0)) == {1: ((0, 2),)}
    assert coalescing.waiting("t", 1) == 0 and coalescing.waiting("t", 2) == 2
    assert runs(coalescing.labelled("t", 1, 0, 2)) == {2: ((0, 2),)}
    assert not coalescing


def test_followers_of_a_batch_that_is_given_up_are_forgotten() -> None:
    coalescing, waits = machine()
    offer(coalescing, 0, "a")
    offer(coalescing, 1, "ab")
    assert coalescing.drop("t", 1) == [] and waits[1] == 0
    assert coalescing.labelled("t", 0, 0, 1) == []
    assert not coalescing


def test_a_follower_that_cannot_use_labels_waits_for_its_own() -> None:
    coalescing, waits = machine()
    offer(coalescing, 0, "aa")
    assert runs([coalescing.excuse("t", Place(0, 1))]) == {0: ((1, 2),)}
    assert waits[0] == 0 and coalescing.followers("t", 0, 0, 1) == []


def test_what_leads_nobody_has_no_followers() -> None:
    coalescing, _ = machine()
    offer(coalescing, 0, "a")
    assert coalescing.followers("t", 1, 0, 1) == [] == coalescing.followers("u", 0, 0, 1)


def test_what_follows_is_counted_by_batch() -> None:
    coalescing, _ = machine()
    offer(coalescing, 0, "aab")
    offer(coalescing, 1, "abc")
    coalescing.offer("u", 1, Wanted.whole(3), keys("aaa"))
    assert coalescing.covered() == {0: 1, 1: 4} and coalescing.pieces() == {0: 1, 1: 2}


def test_a_batch_that_is_gone_takes_nothing_from_others() -> None:
    coalescing, waits = machine()
    offer(coalescing, 0, "a")
    coalescing.labelled("t", 0, 0, 1)
    offer(coalescing, 1, "bc")
    offer(coalescing, 2, "cb")
    coalescing.delivered(0)
    coalescing.validate()
    assert runs(coalescing.labelled("t", 1, 0, 2)) == {2: ((0, 2),)} and waits[2] == 0


def test_after_all_is_forgotten_equal_samples_lead_anew() -> None:
    coalescing, _ = machine()
    offer(coalescing, 0, "aab")
    coalescing.clear()
    coalescing.validate()
    assert not coalescing and not list(coalescing.leaders())
    assert coalescing.places("t", 0) == [] and coalescing.followers("t", 0, 0, 3) == []
    assert offer(coalescing, 1, "ab") == "ab"


class Ends(list[int]):
    """What samples cost, of which one can see whether it is still there."""


@pytest.mark.parametrize(
    "end",
    [
        lambda coalescing: coalescing.drop("t", 0),
        lambda coalescing: (coalescing.labelled("t", 0, 0, 1), coalescing.delivered(0)),
        lambda coalescing: coalescing.clear(),
    ],
    ids=["dropped", "delivered", "forgotten"],
)
def test_nothing_is_kept_of_a_batch_that_is_gone(end: Callable[[Coalescing], object]) -> None:
    coalescing, _ = machine()
    ends = Ends([0, 1])
    coalescing.offer("t", 0, Wanted(1, ((0, 1),), ends), keys("a"))
    seen = weakref.ref(ends)
    del ends
    assert seen() is not None
    end(coalescing)
    assert seen() is None


@given(st.lists(st.text("abc", max_size=6), max_size=8), st.lists(st.integers(0, 10**6), max_size=40))
def test_whatever_is_lost_each_key_has_one_leader_while_somebody_wants_it(
    texts: list[str], picks: list[int]
) -> None:
    coalescing, waits = machine()
    due = {}  # samples without labels of batches that somebody wants
    for batch, text in enumerate(texts):
        offer(coalescing, batch, text)
        due |= {Place(batch, sample): letter for sample, letter in enumerate(text)}
    for pick in picks:
        coalescing.validate()
        led = {place for _, place in coalescing.leaders()}
        assert {due[place] for place in led} == set(due.values()) and len(led) == len(set(due.values()))
        assert waits.total() == len({place.batch for place in due if place not in led})
        if not led:
            break
        place = sorted(led)[pick // 3 % len(led)]
        if pick % 3 == 0:
            coalescing.drop("t", place.batch)
            due = {each: letter for each, letter in due.items() if each.batch != place.batch}
        elif pick % 3 == 1:
            followers = coalescing.followers("t", place.batch, place.sample, place.sample + 1)
            assert {due[each.place] for each in followers} <= {due[place]}
            coalescing.labelled("t", place.batch, place.sample, place.sample + 1)
            due = {each: letter for each, letter in due.items() if letter != due[place]}
        else:
            coalescing.release("t", place.batch, [place.sample])
            del due[place]


# --- in a queue -----------------------------------------------------------------------------------------


def test_equal_samples_of_two_batches_cost_one_lease() -> None:
    queue = joined("w")
    offered(queue, "ab", "ba")
    (grant,) = queue.lease("w", 100, 0.0)
    assert (grant.batch, grant.start, grant.stop) == (0, 0, 2)
    assert queue.lease("w", 100, 0.0) == [] and queue.lacking("teacher") == {0: 2}
    queue.complete(grant.lease, 0.0)
    assert queue.deliverable_batches == 2
    queue.validate(0.0)


def test_followers_wait_on_while_the_worker_of_their_leader_dies() -> None:
    queue = joined("w", "x")
    offered(queue, "a", "a")
    queue.lease("w", 1, 0.0)
    queue.lose("w", "killed", 0.0)
    (grant,) = queue.lease("x", 10, 0.0)
    assert (grant.batch, queue.deliverable_batches) == (0, 0)
    queue.complete(grant.lease, 0.0)
    assert queue.deliverable_batches == 2


def test_what_follows_poison_is_tried_itself() -> None:
    queue = joined("w")
    offered(queue, "a", "a")
    for _ in range(queue.flow.max_attempts):
        (grant,) = queue.lease("w", 10, 0.0)
        assert grant.batch == 0
        outcome = queue.fail(grant.lease, "boom", 0.0)
    assert len(outcome.poison) == 1
    assert [grant.batch for grant in queue.lease("w", 10, 0.0)] == [1]
    queue.validate(0.0)


def test_labels_of_a_worker_that_is_put_aside_are_taken_back_from_followers_too() -> None:
    queue = joined("w", "x")
    offered(queue, "a", "ab")
    for grant in queue.lease("w", 10, 0.0):
        queue.complete(grant.lease, 0.0)
    assert queue.deliverable_batches == 2
    assert queue.take_back("w", 0.0, lambda batch, teacher: 0).samples == 3
    assert queue.deliverable_batches == 0
    queue.quarantine("w")
    for grant in queue.lease("x", 10, 0.0):
        queue.complete(grant.lease, 0.0)
    assert queue.deliverable_batches == 2
    queue.validate(0.0)


def test_batches_that_only_follow_are_not_read_without_bounds() -> None:
    queue = joined("w")
    offered(queue, "a")
    queue.grow(0, 8)
    queue.complete(queue.lease("w", 1, 0.0)[0].lease, 0.0)  # what labels take is known from now on
    offered(queue, "b")
    queue.lease("w", 1, 0.0)
    read = 0
    while queue.wants_batch():
        offered(queue, "b")
        read += 1
        assert read < 100
    assert read == queue.flow.high_watermark - 1, "one is labelled, and the one under way makes room"
