"""Which links a graph takes, gives and moves: the very ones, so that it is the same on every machine."""

from __future__ import annotations

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
