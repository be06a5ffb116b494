"""What becomes of samples that follow equal ones while labels come, are found, or never will be there."""

from __future__ import annotations

from edldist.student.queue.coalescing import Follower, Place
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted
from tests.unit.queues import fill, joined, offered


def complete(queue: LabelQueue, samples: int) -> bool:
    """One lease is labelled; whether a batch has all labels now."""
    (grant,) = queue.lease("w", samples, 0.0)
    return queue.complete(grant.lease, 0.0)


def leased(queue: LabelQueue) -> list[tuple[int, int, int]]:
    return [(grant.batch, grant.start, grant.stop) for grant in queue.lease("w", 100, 0.0)]


def test_those_that_get_the_labels_of_a_lease_are_known_while_it_is_open() -> None:
    queue = joined("w")
    offered(queue, "ab", "bab")
    (grant,) = queue.lease("w", 100, 0.0)
    assert queue.following.of(grant) == [
        Follower(Place(1, 1), Place(0, 0)),
        Follower(Place(1, 0), Place(0, 1)),
        Follower(Place(1, 2), Place(0, 1)),
    ]


def test_nobody_follows_where_samples_have_no_keys() -> None:
    queue = joined("w")
    fill(queue, 2)
    (grant,) = queue.lease("w", 100, 0.0)
    assert queue.following.of(grant) == []


def test_a_batch_that_only_followed_is_ready_although_that_of_its_leader_is_not() -> None:
    queue = joined("w")
    offered(queue, "ab", "a")
    assert complete(queue, 1)
    assert queue.lacking("teacher") == {0: 1}


def test_no_batch_is_ready_while_each_lacks_something() -> None:
    queue = joined("w")
    offered(queue, "ab", "ac")
    assert not complete(queue, 1)


def test_labels_that_are_found_are_those_of_followers_too() -> None:
    queue = joined("w")
    offered(queue, "abc", "a")
    whole = Wanted.whole(3)
    assert queue.following.uncut("teacher", 0) == [(0, 3)]
    assert queue.following.of_found("teacher", 0, whole.only([0])) == [Follower(Place(1, 0), Place(0, 0))]
    assert queue.following.found("teacher", 0, whole.only([0]), whole.only([1, 2])), "the second is ready"
    queue.validate(0.0)
    assert queue.lacking("teacher") == {0: 2}
    assert leased(queue) == [(0, 1, 3)]


def test_what_is_found_makes_a_batch_ready_only_where_nothing_else_lacks() -> None:
    queue = joined("w")
    offered(queue, "abc", "ad")
    whole = Wanted.whole(3)
    assert not queue.following.found("teacher", 0, whole.only([0]), whole.only([1, 2]))
    assert queue.following.found("teacher", 0, whole.only([1, 2]), whole.only([]))
    assert queue.following.found("teacher", 1, Wanted.whole(2).only([1]), Wanted.whole(2).only([]))
    queue.validate(0.0)
    assert queue.deliverable_batches == 2


def test_what_was_found_for_followers_is_nobodys_work() -> None:
    queue = joined("w")
    offered(queue, "a", "a")
    assert queue.following.found("teacher", 0, Wanted.whole(1), Wanted.whole(1).only([]))
    assert queue.take_back("w", 0.0, lambda batch, teacher: 0).samples == 0


def test_a_follower_that_cannot_use_what_its_leader_gets_waits_for_a_worker() -> None:
    queue = joined("w")
    offered(queue, "a", "a")
    leased(queue)
    queue.following.excuse("teacher", Place(1, 0))
    queue.validate(0.0)
    assert leased(queue) == [(1, 0, 1)]


def test_what_follows_a_batch_that_is_given_up_waits_for_a_worker() -> None:
    queue = joined("w")
    offered(queue, "a", "a")
    leased(queue)
    queue.abandon(0)
    queue.validate(0.0)
    assert leased(queue) == [(1, 0, 1)]


def test_what_follows_others_is_asked_for_again_with_its_batch() -> None:
    queue = joined("w")
    offered(queue, "ab", "ac")
    (_, own) = queue.lease("w", 100, 0.0)
    queue.complete(own.lease, 0.0)
    assert queue.ask_again(1, "teacher", Wanted.whole(2), 0) == 1, "the one that followed had no labels"
    queue.validate(0.0)
    assert queue.lacking("teacher") == {0: 2, 1: 2}
    assert leased(queue) == [(1, 0, 2)]
