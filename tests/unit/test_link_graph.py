"""Which links a graph takes, gives and moves: the very ones, so that it is the same on every machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.links.link_graph import LinkGraph


def test_an_overfull_worker_leaves_those_that_are_served_best_and_of_equals_the_first() -> None:
    graph = LinkGraph([64, 64], [64] * 9, degree=2)
    for worker, student in ((0, 8), (0, 1), (0, 3)):
        graph.link(worker, student)
    graph._trim()
    assert graph.served[0] == {3, 8}
    for worker, student in ((0, 5), (1, 8)):
        graph.link(worker, student)
    graph._trim()
    assert graph.served == [{3, 5}, {8}]


def test_the_strongest_worker_with_room_is_given_the_student_that_is_served_worst() -> None:
    graph = LinkGraph([16, 64, 20], [64, 64], degree=1)
    graph.link(2, 1)
    graph._fill()
    assert graph.served == [{1}, {0}, {1}]


def test_a_student_without_a_worker_gets_the_first_one_of_whoever_is_served_best() -> None:
    graph = LinkGraph([64, 64, 64], [64, 64, 64], degree=2)
    for worker, student in ((0, 1), (1, 1), (0, 2), (1, 2), (2, 2)):
        graph.link(worker, student)
    graph._cover()
    assert graph.served == [{0, 1}, {1, 2}, {2}]


def test_the_strongest_worker_that_may_be_spared_moves() -> None:
    graph = LinkGraph([16, 64, 64], [64, 64], degree=2)
    for worker in range(3):
        graph.link(worker, 0)
    assert graph._movable(0, 1) == 1
    graph.link(1, 1)
    assert graph._movable(0, 1) is None, "one has 144 and the other 64: no move makes that clearly more even"


def test_of_workers_that_are_as_strong_the_first_moves_though_only_one_is_left_behind() -> None:
    alike = LinkGraph([200, 200], [64, 64], degree=2)
    mixed = LinkGraph([16, *[200] * 8], [64, 64], degree=2)
    for graph, workers in ((alike, (0, 1)), (mixed, (8, 1))):
        for worker in workers:
            graph.link(worker, 0)
        assert graph._movable(0, 1) == min(workers)


def test_one_job_is_as_none() -> None:
    graphs = [LinkGraph([64, 16, 64], [64] * 9, degree=4, jobs=jobs) for jobs in ((), ["a"] * 9)]
    for graph in graphs:
        graph.link(0, 8)
        graph.solve(balance=True)
    assert graphs[0].served == graphs[1].served


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_the_books_of_a_graph_are_those_of_its_links(data: st.DataObject) -> None:
    workers, students = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 10))
    weights = st.sampled_from([16, 64, 200])
    graph = LinkGraph(
        [data.draw(weights) for _ in range(workers)],
        [data.draw(weights) for _ in range(students)],
        students,
        [data.draw(st.sampled_from("abc")) for _ in range(students)],
    )
    for w, s in data.draw(st.sets(st.tuples(st.integers(0, workers - 1), st.integers(0, students - 1)))):
        graph.link(w, s)
    graph._degree = max(2, -(-students // workers))  # now that there are too many
    graph.solve(balance=True)
    graph.validate()


def test_what_is_unlinked_is_in_no_book_any_more() -> None:
    graph = LinkGraph([64, 64], [64, 64, 64], degree=3, jobs=["a", "a", "b"])
    for worker, student in ((0, 0), (0, 1), (1, 1), (1, 2)):
        graph.link(worker, student)
    graph.validate()
    for worker, student in ((0, 0), (0, 1), (1, 1)):
        graph._unlink(worker, student)
        graph.validate()


def test_an_overfull_worker_keeps_one_of_each_job_though_others_are_served_worse() -> None:
    graph = LinkGraph([64, 64, 64], [64] * 4, degree=4, jobs=["a", "a", "b", "a"])
    for worker, student in ((0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 2), (1, 3), (2, 3)):
        graph.link(worker, student)
    graph._degree = 3
    graph._trim()
    assert graph.served[0] == {0, 1, 2}, "of those whose job has others, the one that is served best goes"
    graph._degree = 2
    graph._trim()
    assert graph.served[0] == {0, 2}


def test_a_worker_with_room_is_given_one_of_each_job_first_of_those_with_fewest_workers() -> None:
    graph = LinkGraph([16, 64, 20, 20], [64] * 4, degree=2, jobs=["b", "a", "c", "a"])
    graph.link(2, 3)
    graph.link(3, 1)
    graph.link(3, 0)
    graph._seat()
    assert graph.served == [{0, 1}, {0, 2}, {2, 3}, {0, 1}], "c, then b, and then a; of a the one with less"


def test_a_worker_parts_with_one_of_several_of_a_job_else_of_a_job_with_two_workers_more() -> None:
    graph = LinkGraph([64] * 3, [64] * 3, degree=2, jobs=["a", "a", "b"])
    for worker, student in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 1)):
        graph.link(worker, student)
    assert graph._spare(0, "b") == 1, "the one that is served best"
    graph._unlink(2, 1)
    graph._unlink(1, 1)
    assert graph._spare(0, "b") == 0, "nobody parts with its only worker"
    graph._unlink(0, 1)
    assert graph._spare(0, "b") == 0, "a has two workers, and b none"
    graph.link(2, 2)
    assert graph._spare(0, "b") is None, "two and one would become one and two"


def test_workers_serve_more_jobs_where_one_has_several_ranks_there() -> None:
    graph = LinkGraph([64, 64], [64] * 3, degree=2, jobs=["a", "a", "b"])
    for worker, student in ((0, 0), (0, 1), (1, 0), (1, 2)):
        graph.link(worker, student)
    assert graph._mix() and graph.served == [{1, 2}, {0, 2}]
    assert not graph._mix()


def test_one_whom_nobody_can_give_to_does_not_keep_others_from_being_even() -> None:
    """A rank that takes the newest version alone has the only worker with it, and little for its hunger."""
    graph = LinkGraph([64] * 6, [128, 64, 64], degree=1, versions=[1, 0, 0, 0, 0, 0], oldest=[1, 0, 0])
    for worker, student in ((0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        graph.link(worker, student)
    graph.solve(balance=True)
    assert graph.served == [{0}, {1}, {1}, {2}, {2}, {2}]


def test_a_job_keeps_its_last_rank_at_a_worker_though_others_are_served_less() -> None:
    graph = LinkGraph([64] * 4, [64] * 3, degree=2, jobs=["a", "a", "b"])
    for worker in range(4):
        graph.link(worker, 0)
    graph.link(1, 1)
    graph.link(0, 2)
    assert graph._movable(0, 2) == 1, "at the others it is the only one of its job"
    assert graph._movable(0, 1) == 0, "but its own job stays"


def test_whoever_waits_gets_a_worker_of_its_own_job_or_one_with_a_version_that_it_takes() -> None:
    graph = LinkGraph([64] * 4, [64] * 3, degree=1, jobs=["a", "b", "a"])
    for worker, student in ((0, 1), (1, 1), (2, 0), (3, 0)):
        graph.link(worker, student)
    graph._cover()
    assert graph.served == [{1}, {1}, {2}, {0}]
    picky = LinkGraph([64] * 3, [64] * 3, degree=1, versions=[0, 1, 2], oldest=[0, 1, 2])
    for worker, student in ((0, 0), (1, 0), (2, 1)):
        picky.link(worker, student)
    picky._cover()
    assert picky.served == [{0}, {1}, {2}], "the pickiest takes that of another, who takes that of a third"
