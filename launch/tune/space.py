"""What may be tuned, and what for: the file that ``--space`` names, checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from edldist.bounds import MOST
from edldist.config import JobConfig
from edldist.config.problems import explain, keys
from edldist.config.section import Section, whole
from edldist.errors import ConfigError
from edldist.yamltext import parse_yaml
from edldist_launch.record.earlier import deciding

__all__ = [
    "Choices",
    "Constraint",
    "Objective",
    "Range",
    "Space",
    "deciding_space",
    "load_space",
    "space_differences",
    "tuning_digest",
]

MOST_AT_A_TIME = 256
MOST_IN_A_WINDOW = 1_000
MOST_CHOICES = 100
MOST_WHOLE = 1 << 53
"""Beyond it not every whole number is one of a float's."""

_Number = Annotated[float, Field(allow_inf_nan=False)]


class Range(Section):
    """All numbers between two."""

    low: _Number = Field(description="a number, the least that may be tried")
    high: _Number = Field(description="a number above `low`, the most that may be tried")
    log: bool = Field(default=False, description="true (a factor counts the same everywhere) or false")
    whole: bool = Field(default=False, description="true (whole numbers only) or false")

    @model_validator(mode="after")
    def _holds_something(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}: nothing lies between them")
        if self.log and self.low <= 0:
            raise ValueError(f"log: true needs low above 0, and it is {self.low:g}")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"whole: true needs whole bounds, and they are {self.low:g} and {self.high:g}")
        if self.whole and max(-self.low, self.high) > MOST_WHOLE:
            raise ValueError(f"whole: true needs bounds of at most {MOST_WHOLE:,} on either side of 0")
        return self


class Choices(Section):
    """Some values, in no order unless all of them are numbers."""

    choices: list[JsonValue] = Field(description=f"a list of 2 to {MOST_CHOICES} different values")

    @field_validator("choices")
    @classmethod
    def _some_choice(cls, choices: list[JsonValue]) -> list[JsonValue]:
        if len(choices) < 2:
            raise ValueError(f"{len(choices)} of them leave nothing to choose")
        if len(choices) > MOST_CHOICES:
            raise ValueError(f"{len(choices)} are too many")
        if len({json.dumps(choice, sort_keys=True) for choice in choices}) < len(choices):
            raise ValueError("a value is given twice")
        if any(isinstance(choice, float) and not math.isfinite(choice) for choice in choices):
            raise ValueError("a number is not finite")
        return choices

    @property
    def ordered(self) -> bool:
        """Whether all of them are numbers, so that neighbours are alike."""
        return all(isinstance(each, int | float) and not isinstance(each, bool) for each in self.choices)


def _kind(value: object) -> str:
    chosen = "choices" in value if isinstance(value, Mapping) else isinstance(value, Choices)
    return "choices" if chosen else "range"


Domain = Annotated[Annotated[Choices, Tag("choices")] | Annotated[Range, Tag("range")], Discriminator(_kind)]


class Objective(Section):
    """What is to become better."""

    metric: str = Field(min_length=1, description="the name of a metric that the script reports")
    goal: Literal["max", "min"] = Field(description="max or min")


class Constraint(Section):
    """What must not become worse than this, beside the control."""

    metric: str = Field(min_length=1, description="the name of a metric that the script reports")
    at_least: _Number | None = Field(
        default=None, gt=0, description="the least ratio to the control, a number above 0"
    )
    at_most: _Number | None = Field(
        default=None, gt=0, description="the most that the ratio to the control may be, a number above 0"
    )

    @model_validator(mode="after")
    def _one_bound(self) -> Constraint:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"the constraint of {self.metric} needs at_least or at_most: give one of them")
        return self

    @property
    def bound(self) -> float:
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    def excess(self, ratio: Any) -> Any:
        """How far ratios are beyond the bound, 0 or less where they are not; numbers or arrays."""
        return ratio - self.bound if self.at_least is None else self.bound - ratio


class Space(Section):
    """A whole space file."""

    keys: dict[str, Domain] = Field(
        min_length=1,
        description="a mapping from keys of the job file, or arguments of the script as in `--lr`, to "
        "{low: .., high: ..} or {choices: [..]}",
    )
    objective: Objective = Field(description="a mapping, as in {metric: accuracy, goal: max}")
    constraints: list[Constraint] = Field(
        default=[], description="a list, as in [{metric: loss, at_most: 1.05}]"
    )
    at_a_time: int = Field(default=2, ge=1, le=MOST_AT_A_TIME, description=whole(1, MOST_AT_A_TIME))
    window: int = Field(default=8, ge=1, le=MOST_IN_A_WINDOW, description=whole(1, MOST_IN_A_WINDOW))
    controls: int = Field(default=1, ge=1, le=MOST_IN_A_WINDOW, description=whole(1, MOST_IN_A_WINDOW))
    seed: str | None = Field(
        default=None, min_length=1, description="a key whose number grows by one with each window, or null"
    )
    steps: int | None = Field(default=None, ge=1, le=MOST, description=f"{whole(1, MOST)}, or null")
    stop: bool = Field(default=True, description="true (trials without hope end early) or false")

    @model_validator(mode="after")
    def _seed_apart(self) -> Space:
        if self.seed in self.keys:
            raise ValueError(f"{self.seed} is tuned, and is the seed of the windows: it can be one of both")
        return self

    @property
    def metrics(self) -> list[str]:
        """All that decide, the objective first, none twice."""
        return list(dict.fromkeys([self.objective.metric, *(each.metric for each in self.constraints)]))

    @property
    def sign(self) -> float:
        """1 where more of the objective is better, else -1."""
        return 1.0 if self.objective.goal == "max" else -1.0

    def gain(self, ratio: float) -> float:
        """By how much a ratio of the objective is better than the control, as a share of it."""
        return self.sign * (ratio - 1)

    def holds(self, ratios: Mapping[str, float]) -> bool:
        """Whether all constraints hold; one whose metric is missing does not."""
        return all(
            each.metric in ratios and each.excess(ratios[each.metric]) <= 0 for each in self.constraints
        )


def load_space(path: Path) -> Space:
    """Read a space file.

    Raises:
        ConfigError: it cannot be read, or says something that is not allowed. All problems are listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no such space file: {path}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read the space file {path}: {exc}") from exc
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        held = "nothing" if document is None else f"a {type(document).__name__}"
        raise ConfigError(f"{path}: a space file is a mapping of {keys(Space)}, this one holds {held}")
    try:
        return Space.model_validate(document)
    except ValidationError as exc:
        problems = [_problem(error) for error in exc.errors()]
        several = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path}: {several}\n{listed}") from exc


def _problem(error: ErrorDetails) -> str:
    """One problem in one line, as of a job file."""
    where, said = error["loc"], error["msg"].removeprefix("Value error, ")
    if not where:
        return said
    if where[0] != "keys" or len(where) < 3 or where[2] not in _SECTIONS:
        return explain(error, Space)
    key, section, rest = f"keys.{where[1]}", _SECTIONS[str(where[2])], where[3:]
    if rest:
        return f"{key}.{explain({**error, 'loc': rest}, section)}"
    if error["type"] == "value_error":
        return f"{key}: {said}"
    return f"{key}: {error['input']!r} is not allowed; it must be {{low: .., high: ..}} or {{choices: [..]}}"


_SECTIONS: dict[str, type[Section]] = {"range": Range, "choices": Choices}


def tuning_digest(space: Space, job: JobConfig) -> str:
    """Tells two tunings apart: by the space, and by what of the job decides what is learnt.

    How many trials run at a time decides nothing.
    """
    told = {"space": deciding_space(space), "job": deciding(job)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def deciding_space(space: Space) -> dict[str, Any]:
    """What of a space decides which trials there are, and what they amount to."""
    return space.model_dump(mode="json", exclude={"at_a_time"})


def space_differences(earlier: Mapping[str, Any], space: Space) -> list[str]:
    """What decides and is not the same, one ``key: earlier -> now`` each."""
    now = deciding_space(space)
    before = {**dict(earlier.get("keys", {})), **{key: earlier.get(key) for key in now if key != "keys"}}
    after = {**now.pop("keys"), **now}
    return [
        f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value)
