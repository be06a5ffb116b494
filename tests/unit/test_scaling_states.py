"""The wanted number of workers, whatever anybody says in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edldist.coordinator.scaling.load import GroupLoad, StudentNeed, WorkerGift
from edldist.coordinator.scaling.scaling import Bounds, Scaling
from edldist.errors import ConfigError

numbers = st.integers(0, 12)
figures = st.none() | st.floats(0.01, 1000.0)


class ScalingMachine(RuleBasedStateMachine):
    """Any figures at any time, and a person who changes their mind."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.bounds = {"auto": Bounds.parse("1:8"), "none": Bounds.parse("0:5"), "fixed": Bounds.parse("2")}
        self.scaling = Scaling(self.bounds)

    @rule(
        group=st.sampled_from(["auto", "none", "fixed", "other"]),
        capacities=st.lists(figures, max_size=4),
        hungers=st.lists(figures, max_size=3),
        starved=st.floats(0, 1),
        lacking=st.integers(0, 2),
        seconds=st.sampled_from([0.0, 1.0, 5.0, 40.0, 400.0]),
    )
    def decide(
        self,
        group: str,
        capacities: list[float | None],
        hungers: list[float | None],
        starved: float,
        lacking: int,
        seconds: float,
    ) -> None:
        self.now += seconds
        before = {name: self.scaling[name] for name in self.bounds}
        here = [WorkerGift(f"w{n}", capacity=each, given=each or 0.0) for n, each in enumerate(capacities)]
        students = [StudentNeed("g", each, starved, each or 0.0, lacking) for each in hungers]
        changes = self.scaling.decide({group: GroupLoad(here, 0, students)}, self.now)
        told = {change.group: (change.before, change.wanted) for change in changes}
        assert len(told) == len(changes)
        for name, former in before.items():
            now = self.scaling[name]
            assert former is not None and now is not None and now.wanted is not None
            assert (name in told) == (former.wanted != now.wanted)
            if name in told:
                assert told[name] == (former.wanted, now.wanted)
                assert former.held is None

    @rule(group=st.sampled_from(["auto", "none", "fixed"]), workers=st.none() | numbers)
    def hold(self, group: str, workers: int | None) -> None:
        bounds, before = self.bounds[group], self.scaling[group]
        if workers is not None and not bounds.least <= workers <= bounds.most:
            with pytest.raises(ConfigError):
                self.scaling.hold(group, workers, self.now)
            assert self.scaling[group] == before
            return
        self.scaling.hold(group, workers, self.now)
        now = self.scaling[group]
        assert now is not None and now.held == workers

    @invariant()
    def holds_together(self) -> None:
        self.scaling.validate()


TestScalingMachine = ScalingMachine.TestCase
TestScalingMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
