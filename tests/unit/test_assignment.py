"""Who serves whom: bounds, coverage, balance, stillness and speed of the assignment."""

from __future__ import annotations

import math
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.assignment import StudentRank, TeacherWorker, assign

Links = dict[str, frozenset[str]]


def workers(count: int, links: Links | None = None) -> dict[str, TeacherWorker]:
    links = links or {}
    return {f"t{i}": TeacherWorker("big", 1.0, links.get(f"t{i}", ())) for i in range(count)}


def ranks(count: int) -> dict[str, StudentRank]:
    return {f"s{i}": StudentRank(["big"]) for i in range(count)}


def workers_per_student(links: Links, students: dict[str, StudentRank]) -> list[int]:
    counts = Counter(s for served in links.values() for s in served)
    return [counts[s] for s in students]


def moved(before: Links, after: Links) -> int:
    """Links of workers present in both that exist in only one of them."""
    return sum(len(before[t] ^ after[t]) for t in before.keys() & after.keys())


def test_small_groups_are_a_full_mesh() -> None:
    students = ranks(16)
    assert assign(workers(3), students, 16) == {f"t{i}": frozenset(students) for i in range(3)}


def test_workers_serve_only_students_that_want_their_group() -> None:
    teachers = {"a": TeacherWorker("big"), "b": TeacherWorker("small"), "c": TeacherWorker("unwanted")}
    students = {"x": StudentRank(["big"]), "y": StudentRank(["big", "small"]), "z": StudentRank(["absent"])}
    assert assign(teachers, students) == {"a": {"x", "y"}, "b": {"y"}, "c": frozenset()}


def test_nobody_to_serve_and_nobody_to_serve_with() -> None:
    assert assign({}, ranks(3)) == {}
    assert assign(workers(2), {}) == {"t0": frozenset(), "t1": frozenset()}


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_students_per_worker=0"):
        assign(workers(1), ranks(1), 0)


def test_students_that_left_are_dropped_from_the_links() -> None:
    links = assign(workers(4), ranks(40), 8)
    students = ranks(40)
    del students["s7"]
    after = assign(workers(4, links), students, 8)
    assert all("s7" not in served for served in after.values())


@st.composite
def problems(draw: st.DrawFn) -> tuple[dict[str, TeacherWorker], dict[str, StudentRank], int]:
    weights = st.one_of(st.just(1.0), st.floats(allow_nan=True, allow_infinity=True))
    groups = ["g0", "g1"]
    student_ids = [f"s{i}" for i in range(draw(st.integers(0, 30)))]
    students = {
        s: StudentRank(draw(st.lists(st.sampled_from(groups), max_size=3)), draw(weights))
        for s in student_ids
    }
    links = st.sets(st.sampled_from([*student_ids, "gone"]), max_size=10)
    teachers = {
        f"t{i}": TeacherWorker(draw(st.sampled_from(groups)), draw(weights), draw(links))
        for i in range(draw(st.integers(0, 12)))
    }
    return teachers, students, draw(st.integers(1, 8))


@given(problems())
@settings(max_examples=150)
def test_any_input_keeps_the_bound_covers_everyone_and_stands_still(
    problem: tuple[dict[str, TeacherWorker], dict[str, StudentRank], int],
) -> None:
    teachers, students, bound = problem
    links = assign(teachers, students, bound)
    assert links.keys() == teachers.keys()
    for group in ("g0", "g1"):
        serving = [t for t, worker in teachers.items() if worker.group == group]
        wanting = {s for s, rank in students.items() if group in rank.groups}
        if not serving:
            continue
        # More students than the bound allows: everyone is served all the same.
        allowed = max(bound, math.ceil(len(wanting) / len(serving)))
        assert all(links[t] <= wanting and len(links[t]) <= allowed for t in serving)
        assert set().union(*(links[t] for t in serving)) == wanting
    shuffled = dict(reversed(teachers.items()))
    assert assign(shuffled, dict(reversed(students.items())), bound) == links
    settled = {t: worker._replace(links=links[t]) for t, worker in teachers.items()}
    assert assign(settled, students, bound) == links


@given(st.integers(1, 40), st.integers(17, 120), st.data())
@settings(max_examples=60)
def test_equal_weights_balance_from_any_start(count: int, students_count: int, data: st.DataObject) -> None:
    students = ranks(students_count)
    start = {
        f"t{i}": frozenset(data.draw(st.sets(st.sampled_from(sorted(students)), max_size=20)))
        for i in range(count)
    }
    served = workers_per_student(assign(workers(count, start), students), students)
    assert max(served) - min(served) <= 2


@given(st.integers(10, 40), st.integers(20, 100))
@settings(max_examples=40)
def test_one_worker_more_or_less_moves_links_in_the_order_of_its_degree(count: int, size: int) -> None:
    students, degree = ranks(size), 16
    before = assign(workers(count), students, degree)
    more = assign(workers(count + 1, before), students, degree)
    assert moved(before, more) <= 2 * degree
    fewer_workers = workers(count, before)
    del fewer_workers["t0"]
    fewer = assign(fewer_workers, students, degree)
    assert moved(before, fewer) <= 2 * degree
    served = workers_per_student(fewer, students)
    assert max(served) - min(served) <= 2


def test_a_new_student_is_served_by_moving_few_links() -> None:
    before = assign(workers(20), ranks(50), 16)
    students = ranks(51)
    after = assign(workers(20, before), students, 16)
    served = workers_per_student(after, students)
    assert served[50] >= min(served) >= 4
    assert moved(before, after) <= 2 * 16


def test_long_churn_keeps_every_bound() -> None:
    links: Links = {}
    for turn in range(60):
        teachers = {f"t{i}": TeacherWorker("big", 1.0, links.get(f"t{i}", ())) for i in range(turn % 7, 25)}
        students = {f"s{i}": StudentRank(["big"]) for i in range(turn % 5, 40 + turn % 11)}
        links = assign(teachers, students, 8)
        served = workers_per_student(links, students)
        assert min(served) >= 1
        assert max(served) - min(served) <= 2


def test_hungry_students_get_more_workers_and_strong_workers_are_spread() -> None:
    students = {f"s{i}": StudentRank(["big"], 3.0 if i < 10 else 1.0) for i in range(40)}
    served = workers_per_student(assign(workers(40), students, 8), students)
    assert min(served[:10]) >= 2 * max(served[10:])
    strong = {f"t{i:02}": TeacherWorker("big", 10.0 if i < 5 else 1.0) for i in range(40)}
    links = assign(strong, ranks(40), 8)
    by_strong = Counter(s for t in list(strong)[:5] for s in links[t])
    assert set(by_strong.values()) == {1} and len(by_strong) == 40


def test_the_graph_does_not_fall_into_islands() -> None:
    links = assign(workers(16), ranks(32), 16)
    reached, frontier = set(), {"s0"}
    while frontier:
        reached |= frontier
        frontier = set().union(*(served for served in links.values() if served & reached)) - reached
    assert len(reached) == 32


def test_a_thousand_workers_and_two_hundred_students_take_little_time() -> None:
    students = ranks(200)
    began = time.process_time()
    links = assign(workers(1000), students, 16)
    scratch_s = time.process_time() - began
    began = time.process_time()
    assert assign(workers(1000, links), students, 16) == links
    still_s = time.process_time() - began
    assert scratch_s < 0.5 and still_s < 0.25
