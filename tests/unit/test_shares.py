"""A worker that several jobs share gives each its part by weight and priority, and wastes none of it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.teacher.service.demand import Demand, PullOrder
from edldist.teacher.service.shares import MOST_TURNS, SharedJob, Shares
from edldist.wire.messages import JobShare

BATCH = 8


@dataclass
class Student:
    """One that has so many samples to give, some for each pull; None: without end, and as many as fit."""

    share: JobShare
    left: int | None = None
    buffered: int = 0
    at_once: int | None = None


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
        cost = min(size for size in (order.room, student.left, student.at_once) if size is not None)
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


def test_a_job_that_gives_little_for_each_pull_is_asked_more_often():
    students = jobs(much=1, little=1)
    students["little"].at_once = 2
    got = Bench(students).run(500)
    assert abs(got["much"] - got["little"]) <= 2 * BATCH


def asked(demand: Demand) -> str:
    order = demand.next_pull()
    return "" if order is None else order.student


@pytest.mark.parametrize("again", [False, True])
def test_what_a_rank_was_asked_for_and_never_gave_is_not_its_jobs_loss(again: bool):
    demand = Demand(BATCH)
    for name, job in (("a1", "a"), ("a2", "a"), ("b", "b")):
        demand.connected(name, JobShare(job=job, weight=1))
    assert asked(demand) == "a1"
    if again:
        demand.connected("a1", JobShare(job="a", weight=1))
    else:
        demand.disconnected("a1")
    assert asked(demand) == "a2", "and not b, as if a had had its turn"


def test_jobs_are_told_apart_no_more_when_those_that_were_named_are_gone():
    demand = Demand(BATCH)
    demand.connected("named", JobShare(job="named", weight=1))
    for name in ("full", "hungry"):
        demand.connected(name)
    demand.disconnected("named")
    order = demand.next_pull()
    demand.granted("full", order.seq, 0, 9)
    for _ in range(4):
        order = demand.next_pull()
        assert order.student == "hungry"
        demand.granted("hungry", order.seq, BATCH, 0)
        demand.finished("hungry", BATCH)


def sharing(**jobs: JobShare) -> Shares:
    """Of students that are called by their job and, where that has several, a number."""
    shares = Shares()
    for student, share in jobs.items():
        shares.joined(student, share)
    return shares


def owed(shares: Shares, *students: str) -> list[float]:
    return [shares[each].deficit for each in students]


def of(job: str, weight: int = 1, priority: int = 0) -> JobShare:
    return JobShare(job=job, weight=weight, priority=priority)


def test_most_is_owed_to_whom_most_is_owed_for_its_weight():
    assert SharedJob(weight=1, deficit=2.0).place < SharedJob(weight=3, deficit=3.0).place
    assert SharedJob(weight=3, priority=1, deficit=-9.0).place < SharedJob(deficit=9.0).place


def test_what_one_gets_is_owed_to_those_of_its_priority_and_bounded_by_some_turns():
    shares = sharing(a=of("a", 3), b=of("b"), low=of("low", 1, -1))
    shares.charge("a", 8, ["a", "b", "low"], turn=BATCH)
    assert owed(shares, "a", "b", "low") == [-2.0, 2.0, 0.0]
    shares.charge("b", 4, [], turn=BATCH)
    assert owed(shares, "a", "b", "low") == [-2.0, 2.0, 0.0], "alone, it takes from nobody"
    shares.charge("a", 10**6, ["a", "b"], turn=BATCH)
    assert owed(shares, "a", "b") == [-MOST_TURNS * BATCH, MOST_TURNS * BATCH]


def test_a_job_that_has_nothing_to_give_leaves_what_it_was_owed_to_the_others():
    shares = sharing(a=of("a"), b=of("b", 2), c=of("c"), low=of("low", 1, -1))
    shares.charge("b", 2, ["a", "b", "c"], turn=BATCH)
    assert owed(shares, "a", "b", "c") == [0.5, -1.0, 0.5]
    shares.rests("a", ["b", "c", "low"])
    assert owed(shares, "a", "b", "c", "low") == [0.0, -1.0 + 1 / 3, 0.5 + 1 / 6, 0.0]
    shares.rests("b", ["c"])
    assert owed(shares, "b", "c") == [-1.0 + 1 / 3, 0.5 + 1 / 6], "what it had too much of is not forgotten"


def test_a_job_is_owed_something_as_long_as_one_of_its_ranks_has_something():
    shares = sharing(a1=of("a"), a2=of("a"), b=of("b"))
    shares.charge("b", 4, ["a1", "a2", "b"], turn=BATCH)
    shares.rests("a1", ["a2", "b"])
    assert owed(shares, "a1", "a2", "b") == [2.0, 2.0, -2.0]


def test_jobs_keep_what_they_are_owed_when_others_come_and_ranks_that_part_get_it_once():
    shares = sharing(a1=of("a"), a2=of("a"), b=of("b"))
    shares.charge("b", 4, ["a1", "b"], turn=BATCH)
    shares.joined("c", of("c", 5))
    assert owed(shares, "a1", "b", "c") == [2.0, -2.0, 0.0] and shares["c"].weight == 5
    shares.joined("a2", of("other", 2, 1))
    assert owed(shares, "a1", "a2", "b") == [2.0, 0.0, -2.0]
    assert (shares["a2"].weight, shares["a2"].priority, shares["a1"].priority) == (2, 1, 0)
    shares.left("a2")
    assert owed(shares, "a1", "b") == [2.0, -2.0]


def test_of_ranks_of_a_job_that_say_different_things_the_most_counts():
    shares = sharing(a1=of("a", 2, -1), a2=of("a", 3, -2), b=JobShare(job="b"))
    assert (shares["a1"].weight, shares["a1"].priority) == (3, -1) and shares["b"].weight == 1
    assert shares["a1"] is shares["a2"] and shares["a1"] is not shares["b"]


def test_students_of_no_job_are_one_each_beside_those_that_are_named():
    shares = sharing(a=of("a"), b=JobShare(), c=JobShare())
    assert shares.several and len({id(shares[each]) for each in "abc"}) == 3
    shares.left("nobody")
    shares.left("a")
    assert not shares.several and shares["b"] is shares["c"]
