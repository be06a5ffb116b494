"""Who serves whom: bounds, coverage, balance, stillness and speed of the assignment."""

from __future__ import annotations

import math
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.coordinator.links.assignment import StudentRank, TeacherWorker, _weights, assign

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


@st.composite
def mixed_problems(draw: st.DrawFn) -> tuple[dict[str, TeacherWorker], dict[str, StudentRank], int]:
    """The same with jobs, and with versions of which students take some."""
    teachers, students, bound = draw(problems())
    jobs = st.sampled_from(draw(st.sampled_from([["a"], ["a", "b"], list("abcdefghij")])))
    versions = st.integers(0, draw(st.sampled_from([0, 1, 3])))
    return (
        {t: worker._replace(version=draw(versions)) for t, worker in teachers.items()},
        {
            s: rank._replace(job=draw(jobs), oldest={"g0": draw(versions), "g1": draw(versions)})
            for s, rank in students.items()
        },
        bound,
    )


@given(mixed_problems())
@settings(max_examples=100, deadline=None)
def test_with_jobs_and_versions_everybody_is_served_by_who_suits_and_links_stand_still(
    problem: tuple[dict[str, TeacherWorker], dict[str, StudentRank], int],
) -> None:
    teachers, students, bound = problem
    links = assign(teachers, students, bound)
    for group in ("g0", "g1"):
        serving = {t: worker for t, worker in teachers.items() if worker.group == group}
        wanting = {s: rank for s, rank in students.items() if group in rank.groups}
        if not serving or len(wanting) <= bound:
            continue
        newest = max(worker.version for worker in serving.values())
        taking = {s for s, rank in wanting.items() if rank.oldest[group] <= newest}
        assert set().union(*(links[t] for t in serving)) == (taking or wanting.keys())
        for t, worker in serving.items():
            assert not taking or all(students[s].oldest[group] <= worker.version for s in links[t])
        # No worker has more than the pickiest need, as if each set of them had its workers to itself.
        floors = {students[s].oldest[group] for s in taking} | {0}
        least = max(
            math.ceil(
                sum(students[s].oldest[group] >= floor for s in taking or wanting)
                / sum(worker.version >= floor for worker in serving.values())
            )
            for floor in (floors if taking else {0})
        )
        if not taking:
            least = math.ceil(len(wanting) / len(serving))
        assert all(len(links[t]) <= max(bound, least) for t in serving)
    settled = {t: worker._replace(links=links[t]) for t, worker in teachers.items()}
    assert assign(settled, students, bound) == links


def shares(links: Links, students: dict[str, StudentRank], weights: dict[str, int]) -> dict[str, float]:
    """What jobs that want all that they can get have of equal workers, each of which goes by weights."""
    got: Counter[str] = Counter()
    for served in links.values():
        present = {students[s].job for s in served}
        for job in present:
            got[job] += weights[job] / sum(weights[each] for each in present)
    return {job: got[job] / len(links) for job in weights}


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 9)), min_size=2, max_size=5),
    st.integers(2, 60),
    st.integers(8, 16),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_jobs_have_their_shares_by_weight_past_the_bound_whatever_ranks_they_have(
    jobs: list[tuple[int, int]], count: int, degree: int, data: st.DataObject
) -> None:
    students = {
        f"j{job}r{rank}": StudentRank(["big"], data.draw(st.sampled_from([1.0, 3.0, math.nan])), f"j{job}")
        for job, (its_ranks, _) in enumerate(jobs)
        for rank in range(its_ranks)
    }
    weights = {f"j{job}": weight for job, (_, weight) in enumerate(jobs)}
    start = {
        f"t{i}": frozenset(data.draw(st.sets(st.sampled_from(sorted(students)), max_size=degree)))
        for i in range(count)
    }
    links = assign(workers(count, start), students, degree)
    if count * (degree - len(jobs)) < 2 * len(students):
        return  # hardly anything is left beside one worker for each rank
    assert all({students[s].job for s in served} == weights.keys() for served in links.values())
    due = {job: weight / sum(weights.values()) for job, weight in weights.items()}
    assert shares(links, students, weights) == {job: pytest.approx(share) for job, share in due.items()}


@pytest.mark.parametrize("ranks_each", [1, 3])
def test_of_more_jobs_than_the_bound_none_has_clearly_more_workers_than_another(ranks_each: int) -> None:
    students = {
        f"j{job}r{rank}": StudentRank(["big"], 5.0 if job < 3 else 1.0, f"j{job}")
        for job in range(12)
        for rank in range(ranks_each)
    }
    links = assign(workers(60), students, 4)
    presence = Counter(job for served in links.values() for job in {students[s].job for s in served})
    assert len(presence) == 12 and max(presence.values()) - min(presence.values()) <= 2
    weights = {f"j{job}": 3 if job == 0 else 1 for job in range(12)}
    got = shares(links, students, weights)
    assert got["j0"] == pytest.approx(3 / 14, abs=0.05)
    assert all(share == pytest.approx(1 / 14, abs=0.02) for job, share in got.items() if job != "j0")


def test_a_rank_that_takes_newer_labels_alone_gets_a_worker_that_has_them() -> None:
    teachers = workers(3)
    teachers["t2"] = teachers["t2"]._replace(version=2)
    students = {f"s{i}": StudentRank(["big"], oldest={"big": 2 if i < 2 else 0}) for i in range(3)}
    links = assign(teachers, students, 1)
    assert links["t2"] == {"s0", "s1"}, "both are served, though that is more than the bound"
    assert links["t0"] == links["t1"] == {"s2"}
    nobody = {s: rank._replace(oldest={"big": 3}) for s, rank in students.items()}
    for refused in (teachers, workers(3)):
        assert set().union(*assign(refused, nobody, 1).values()) == set(students), "who refuses says why"


def test_who_takes_what_is_here_is_served_and_who_does_not_is_not() -> None:
    students = {"any": StudentRank(["big"]), "new": StudentRank(["big"], oldest={"big": 1})}
    assert assign(workers(1), students, 1) == {"t0": {"any"}}


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


def test_weights_are_whole_numbers_about_that_of_the_mean_within_a_ratio() -> None:
    assert _weights([1.0, 3.0, math.nan, -1.0, math.inf, 0.0]) == [32, 96, 64, 64, 64, 64]
    assert _weights([1.0] * 99 + [1e9])[-2:] == [64 // 16, 64 * 16]
    assert _weights([math.nan, 0.0]) == [64, 64]


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


def test_jobs_and_versions_cost_a_thousand_workers_little_more() -> None:
    students = {f"s{i}": StudentRank(["big"], 1.0, f"j{i % 7}", {"big": i % 3}) for i in range(200)}
    teachers = {t: worker._replace(version=int(t[1:]) % 3) for t, worker in workers(1000).items()}
    began = time.process_time()
    links = assign(teachers, students, 16)
    assert time.process_time() - began < 5
    settled = {t: worker._replace(links=links[t]) for t, worker in teachers.items()}
    assert assign(settled, students, 16) == links
