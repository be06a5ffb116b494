"""A worker that several jobs share gives each its part by weight and priority, and wastes none of it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.teacher.service.demand import Demand, PullOrder
from edldist.wire.messages import JobShare

BATCH = 8


@dataclass
class Student:
    """One that has so many samples to give; None: without end."""

    share: JobShare
    left: int | None = None
    buffered: int = 0


@dataclass
class Bench:
    """A worker and students that answer ``latency`` passes later; a pass takes what was granted first."""

    students: dict[str, Student]
    latency: int = 0
    got: Counter[str] = field(default_factory=Counter)
    idle_passes: int = 0

    def __post_init__(self) -> None:
        self.demand = Demand(BATCH)
        self._asked: deque[tuple[int, PullOrder]] = deque()
        self._held: deque[tuple[str, int]] = deque()
        self._passes = 0
        for name, student in self.students.items():
            self.demand.connected(name, student.share)

    def run(self, passes: int) -> Counter[str]:
        """What each student gets of so many passes more."""
        before = self.got.copy()
        for _ in range(passes):
            self._pull()
            if self._held:
                name, cost = self._held.popleft()
                self.got[name] += cost
                self.demand.finished(name, cost)
            else:
                self.idle_passes += 1
            self._passes += 1
            self.demand.validate(Counter({name: self._cost(name) for name, _ in self._held}))
        return self.got - before

    def _cost(self, name: str) -> int:
        return sum(cost for held, cost in self._held if held == name)

    def _pull(self) -> None:
        """Take the answers that are due, and ask, until there is nothing of either."""
        while True:
            while self._asked and self._asked[0][0] <= self._passes:
                self._answer(self._asked.popleft()[1])
            if (order := self.demand.next_pull()) is None:
                return
            self._asked.append((self._passes + self.latency, order))

    def _answer(self, order: PullOrder) -> None:
        student = self.students[order.student]
        cost = order.room if student.left is None else min(order.room, student.left)
        if not cost:
            self.demand.idled(order.student, order.seq, student.buffered)
            return
        if student.left is not None:
            student.left -= cost
        self.demand.granted(order.student, order.seq, cost, student.buffered)
        self._held.append((order.student, cost))


def jobs(**weights: int) -> dict[str, Student]:
    return {name: Student(JobShare(job=name, weight=weight)) for name, weight in weights.items()}


def test_jobs_get_their_weights_one_pull_at_a_time():
    bench = Bench(jobs(a=2, b=1, c=1))
    order = [next(iter(bench.run(1))) for _ in range(40)]
    assert Counter(order[:36]) == {"a": 18, "b": 9, "c": 9}
    assert all(order[n : n + 4].count("a") == 2 for n in range(4, 36)), "mixed, and not a a b c"


def test_a_job_shares_its_weight_among_its_ranks_and_the_hungriest_of_them_comes_first():
    students = {f"a{n}": Student(JobShare(job="a", weight=1), buffered=n) for n in range(3)}
    bench = Bench(students | jobs(b=1))
    got = bench.run(400)
    assert got["b"] == 200 * BATCH
    assert got["a0"] > got["a1"] + got["a2"], "a0 has the emptiest buffer"


def test_without_any_weight_the_hungriest_of_all_students_comes_first():
    students = {name: Student(JobShare(job=name), buffered=n) for n, name in enumerate("abc")}
    bench = Bench(students)
    bench.run(4)
    assert set(bench.run(100)) == {"a"}, "once each has told how full its buffer is"
    students["b"].share = JobShare(job="b", weight=1)
    named = Bench(students).run(300)
    assert max(named.values()) - min(named.values()) <= 2 * BATCH, "one weight is enough: all others are 1"


def test_a_higher_priority_has_all_it_wants_and_a_lower_one_the_rest():
    students = jobs(low=100) | {"high": Student(JobShare(job="high", weight=1, priority=1), left=50 * BATCH)}
    bench = Bench(students)
    got = bench.run(50)
    assert got["high"] >= 49 * BATCH
    assert bench.run(50)["low"] >= 49 * BATCH
    assert not bench.idle_passes


def test_who_had_nothing_to_give_has_saved_nothing_up():
    students = jobs(a=1, b=1)
    students["b"].left = 0
    bench = Bench(students)
    bench.run(1000)
    students["b"].left = None
    bench.demand.woken("b", 0)
    got = bench.run(40)
    assert abs(got["a"] - got["b"]) <= 2 * BATCH


def test_what_a_job_was_owed_is_forgotten_when_it_has_nothing_to_give():
    demand = Demand(BATCH)
    for name, student in jobs(a=1, b=1).items():
        demand.connected(name, student.share)
    first, slow = demand.next_pull(), demand.next_pull()
    assert (first.student, slow.student) == ("a", "b")
    order = first
    for _ in range(6):
        demand.granted("a", order.seq, BATCH, 0)
        demand.finished("a", BATCH)
        order = demand.next_pull()
        assert order.student == "a", "b has not answered"
    demand.idled("b", slow.seq, 0)
    demand.woken("b", 0)
    asked = []
    for _ in range(8):
        asked.append(order.student)
        demand.granted(order.student, order.seq, BATCH, 0)
        demand.finished(order.student, BATCH)
        order = demand.next_pull()
    assert "bbb" not in "".join(asked)


def test_a_job_that_dies_leaves_its_part_to_the_others_at_once():
    bench = Bench(jobs(a=6, b=1, c=1))
    bench.run(80)
    bench.demand.disconnected("a")
    bench._held = deque((name, cost) for name, cost in bench._held if name != "a")
    bench._asked = deque((at, order) for at, order in bench._asked if order.student != "a")
    got = bench.run(40)
    assert got["b"] + got["c"] == 40 * BATCH and abs(got["b"] - got["c"]) <= 2 * BATCH


def test_a_student_that_welcomes_again_with_another_weight_has_that():
    bench = Bench(jobs(a=1, b=1))
    bench.run(20)
    bench._held = deque((name, cost) for name, cost in bench._held if name != "a")
    bench._asked = deque((at, order) for at, order in bench._asked if order.student != "a")
    bench.demand.connected("a", JobShare(job="a", weight=3))
    got = bench.run(400)
    assert got["a"] == pytest.approx(300 * BATCH, abs=4 * BATCH)


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 20), min_size=2, max_size=8), latency=st.integers(0, 1))
def test_who_always_has_something_gets_its_part_to_a_few_turns(weights: list[int], latency: int):
    bench = Bench(jobs(**{f"j{n}": weight for n, weight in enumerate(weights)}), latency)
    passes = 10 * sum(weights)
    got = bench.run(passes)
    for n, weight in enumerate(weights):
        assert abs(got[f"j{n}"] - passes * BATCH * weight / sum(weights)) <= 4 * BATCH, (weights, got)


@settings(max_examples=60, deadline=None)
@given(
    supplies=st.lists(
        st.tuples(st.integers(1, 50), st.integers(0, 200), st.integers(-2, 2)), min_size=1, max_size=6
    )
)
def test_no_pass_is_wasted_while_anybody_has_something(supplies: list[tuple[int, int, int]]):
    students = {
        f"j{n}": Student(JobShare(job=f"j{n}", weight=weight, priority=priority), left=left)
        for n, (weight, left, priority) in enumerate(supplies)
    }
    bench = Bench(students)
    total = sum(left for _, left, _ in supplies)
    for _ in range(10 * len(supplies) + total // BATCH + 1):
        waits = any(student.left for student in students.values())
        before = bench.idle_passes
        bench.run(1)
        assert bench.idle_passes == before or not waits
    assert bench.got.total() == total, "nobody of any weight starves while the others are bounded"


@settings(max_examples=40, deadline=None)
@given(light=st.integers(1, 3), heavy=st.integers(200, 1000))
def test_the_lightest_job_beside_the_heaviest_is_served_within_a_round(light: int, heavy: int):
    bench = Bench(jobs(light=light, heavy=heavy))
    round_ = 2 * (light + heavy) // light + 4
    assert all(bench.run(round_)["light"] for _ in range(3))
