"""What a plan is to reach, and how near a setting comes to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edldist.wording import duration
from edldist_launch.planner.replay import Replayed
from edldist_launch.planner.setting import Setting

__all__ = ["Kind", "Option", "Target"]

Kind = Literal["efficiency", "deadline", "budget"]


@dataclass(frozen=True)
class Option:
    """A setting, and what it would come to.

    Attributes:
        setting: what is chosen.
        replayed: its figures.
        samples: that the run labels in all.
    """

    setting: Setting
    replayed: Replayed
    samples: int

    @property
    def lasts_s(self) -> float:
        """Seconds from the first batch to the last."""
        return self.samples / self.replayed.samples_per_s

    @property
    def worker_s(self) -> float:
        """What it costs: seconds of all workers."""
        return self.setting.workers * self.lasts_s


@dataclass(frozen=True)
class Target:
    """What is to be reached.

    Attributes:
        kind: ``efficiency`` (the student's rate, as a share of what it takes when it never waits, at least),
            ``deadline`` (seconds of the whole run, at most) or ``budget`` (worker seconds, at most; then the
            fastest run is the best).
        value: how much of it.
    """

    kind: Kind
    value: float

    def met_by(self, option: Option) -> bool:
        if self.kind == "efficiency":
            return option.replayed.efficiency >= self.value
        return (option.lasts_s if self.kind == "deadline" else option.worker_s) <= self.value

    def place(self, option: Option) -> tuple[bool, float, float]:
        """The lower, the better: those that meet the target first, then by what it leaves open.

        Of those that meet it the cheapest is the best (of a budget: the fastest); of the others the nearest.
        """
        met = self.met_by(option)
        fast, cheap = option.lasts_s, option.worker_s
        if met:
            return (False, fast, cheap) if self.kind == "budget" else (False, cheap, fast)
        return (True, cheap, fast) if self.kind == "budget" else (True, fast, cheap)

    def needs(self, samples: int, student_rate: float) -> float:
        """Samples per second that it takes at least; 0 where that depends on the workers."""
        if self.kind == "efficiency":
            return self.value * student_rate
        return samples / self.value if self.kind == "deadline" else 0.0

    def in_words(self) -> str:
        if self.kind == "efficiency":
            return f"the student at {self.value:.0%} of its own speed"
        if self.kind == "deadline":
            return f"done within {duration(self.value)}"
        return f"at most {self.value / 3600:.4g} worker hours"
