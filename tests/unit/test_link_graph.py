"""Which links a graph takes, gives and moves: the very ones, so that it is the same on every machine."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.links.link_graph import LEVEL_ONE, LinkGraph


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


def test_all_is_trimmed_and_nobody_goes_without_a_worker() -> None:
    graph = LinkGraph([64, 64], [64] * 4, degree=2)
    for worker, student in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
        graph.link(worker, student)
    graph.solve(balance=False)
    assert graph.served == [{0, 3}, {1, 2}]


def test_workers_with_room_take_whom_they_do_not_serve_and_who_takes_their_version() -> None:
    graph = LinkGraph([64] * 3, [64] * 2, degree=2)
    for worker, student in ((0, 0), (1, 1), (2, 1)):
        graph.link(worker, student)
    graph._fill()
    assert graph.served == [{0, 1}] * 3
    graph.validate()
    picky = LinkGraph([64] * 2, [64] * 2, degree=2, versions=[1, 0], oldest=[1, 0])
    picky._fill()
    assert picky.served == [{0, 1}, {1}]
    small = LinkGraph([64], [64] * 4, degree=2)
    small.link(0, 0)
    small._fill()
    assert len(small.served[0]) == 2


def test_students_that_are_served_alike_are_mixed_and_fall_into_no_islands() -> None:
    graph = LinkGraph([64] * 8, [64] * 16, degree=4)
    graph._fill()
    met, last = graph.served[0], None
    while met != last:
        last, met = met, met.union(*(served for served in graph.served if served & met))
    assert met == set(range(16))


def test_those_that_wait_are_given_workers_in_their_order_by_whoever_has_most() -> None:
    graph = LinkGraph([64] * 5, [64] * 4, degree=1)
    for worker, student in ((0, 2), (1, 2), (2, 2), (3, 3), (4, 3)):
        graph.link(worker, student)
    graph._cover()
    assert graph.served == [{0}, {1}, {2}, {3}, {3}]
    strong = LinkGraph([512, 64, 64], [64] * 3, degree=1)
    for worker, student in ((0, 0), (1, 1), (2, 1)):
        strong.link(worker, student)
    strong._cover()
    assert strong.served == [{0}, {2}, {1}], "nobody gives its only worker, however strong"


def test_of_those_that_wait_the_one_goes_first_that_takes_fewest_versions() -> None:
    graph = LinkGraph([64] * 5, [64] * 4, degree=1, versions=[2, 1, 0, 2, 1], oldest=[2, 1, 0, 0])
    for worker, student in ((0, 2), (1, 2), (2, 2), (3, 3), (4, 3)):
        graph.link(worker, student)
    graph._cover()
    assert graph.served == [{0}, {1}, {2}, {3}, {3}]
    # 1 takes 0's worker from 2, so 2 waits, but behind 0.
    pushed = LinkGraph([64] * 5, [64] * 5, degree=1, versions=[2, 2, 1, 1, 0], oldest=[2, 2, 1, 1, 0])
    for worker, student in ((0, 2), (1, 3), (2, 4), (3, 4), (4, 4)):
        pushed.link(worker, student)
    pushed._cover()
    assert pushed.served == [{1}, {0}, {3}, {2}, {4}]


def test_nobody_gives_its_only_worker_to_one_that_is_as_picky() -> None:
    graph = LinkGraph([128, 64, 64, 64], [64] * 4, degree=1, versions=[1, 1, 0, 0], oldest=[1, 1, 0, 0])
    for worker, student in ((0, 1), (1, 2), (2, 3), (3, 3)):
        graph.link(worker, student)
    graph._cover()
    assert graph.served == [{1}, {0}, {2}, {3}]


def test_a_seat_is_for_a_job_that_has_none_and_for_a_rank_that_takes_the_version() -> None:
    graph = LinkGraph([64], [64] * 3, degree=3, jobs=["a", "a", "b"])
    graph.link(0, 0)
    graph._seat()
    assert graph.served == [{0, 2}]
    jobs, versions, oldest = ["a", "a", "b"], [0, 1], [1, 0, 0]
    picky = LinkGraph([64] * 2, [64] * 3, degree=2, jobs=jobs, versions=versions, oldest=oldest)
    picky._seat()
    assert picky.served == [{1, 2}, {0, 2}]


def test_of_equals_the_first_is_spared_in_whatever_order_they_came() -> None:
    graph = LinkGraph([64] * 2, [64] * 9, degree=2, jobs=["b", *["a"] * 8])
    for worker in (0, 1):
        graph.link(worker, 8)
        graph.link(worker, 1)
    assert list(graph.served[0]) == [8, 1], "the same place of the table"
    assert graph._spare(0, "b") == 1


def test_whether_links_moved_is_told() -> None:
    graph = LinkGraph([64] * 3, [64] * 2, degree=2)
    for worker in range(3):
        graph.link(worker, 0)
    assert graph._balance() and graph.served == [{1}, {0}, {0}]
    assert not graph._balance()


def evened_out(graph: LinkGraph, stuck: set[int]) -> tuple[bool, int | None]:
    """As ``LinkGraph._even_out``, who looks at everybody each time."""
    students, cannot = range(len(graph._level)), set[int]()
    moved = refused = False
    while True:
        poor = min((s for s in students if s not in stuck), key=lambda s: (graph._level[s], s), default=None)
        rich = min(
            (s for s in students if s not in cannot), key=lambda s: (-graph._level[s], s), default=None
        )
        if poor is None or rich is None or graph._level[rich] - graph._level[poor] <= LEVEL_ONE:
            return moved, poor if refused else None
        if (w := graph._movable(rich, poor)) is None:
            cannot.add(rich)
            refused = True
        else:
            graph._unlink(w, rich)
            graph.link(w, poor)
            cannot -= {rich, poor}
            moved = True


def test_the_one_that_is_served_best_gives_to_the_one_that_is_served_worst_until_none_can() -> None:
    rng = random.Random(1)
    ends: Counter[tuple[bool, bool]] = Counter()
    for _ in range(400):
        workers, students = rng.randint(1, 8), rng.randint(1, 5)
        capacities = [rng.choice([16, 64, 64, 200]) for _ in range(workers)]
        hungers = [rng.choice([64, 64, 128]) for _ in range(students)]
        jobs = [rng.choice("ab") for _ in range(students)] if rng.random() < 0.5 else []
        oldest = [rng.randint(0, 1) for _ in range(students)] if rng.random() < 0.5 else []
        versions = [rng.randint(0, 1) for _ in range(workers)]
        graphs = [LinkGraph(capacities, hungers, students, jobs, versions, oldest) for _ in range(2)]
        for w in range(workers):
            for s in rng.sample(range(students), rng.randint(0, min(2, students))):
                if graphs[0].takes(w, s):
                    for graph in graphs:
                        graph.link(w, s)
        stuck = set(rng.sample(range(students), rng.randint(0, 1)))
        ended = graphs[0]._even_out(set(stuck))
        assert ended == evened_out(graphs[1], stuck) and graphs[0].served == graphs[1].served
        ends[ended[0], ended[1] is None] += 1
    assert len(ends) == 4, "moved or not, refused or not"


def test_what_is_unlinked_is_in_no_book_any_more() -> None:
    graph = LinkGraph([64, 64], [64, 64, 64], degree=3, jobs=["a", "a", "b"])
    graph.validate()
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


def test_workers_with_room_serve_each_job_though_no_link_moves_for_evenness() -> None:
    graph = LinkGraph([64] * 3, [64] * 3, degree=2, jobs=["a", "a", "b"])
    graph.link(1, 2)
    graph.link(2, 2)
    graph.solve(balance=False)
    assert graph.served == [{0, 2}, {1, 2}, {0, 2}], "though of each job a second one would come first"


def test_a_worker_serves_one_more_job_once_another_one_has_made_room() -> None:
    """Worker 0 serves two ranks that have no other worker, until others have taken one of these each."""
    graph = LinkGraph([64] * 3, [64] * 4, degree=2, jobs=["a", "a", "b", "b"])
    for worker, student in ((0, 0), (0, 1), (1, 2), (1, 3), (2, 2), (2, 3)):
        graph.link(worker, student)
    graph.solve(balance=True)
    assert graph.served == [{1, 2}, {0, 3}, {1, 2}]


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
    graph.link(2, 1)
    graph.link(0, 2)
    assert graph._movable(0, 2) == 2, "at the others it is the only one of its job"
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
