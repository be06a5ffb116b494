"""Which settings of a job a trial has: read from the job for the control, written into it for a candidate.

A key is one of the job file, with dots as in ``--set``, or an argument of the student's script, as in
``--lr``. All trials share one fleet, so only what belongs to the student can be another in each. Pure.
"""

from __future__ import annotations

import difflib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from edldist.bounds import LONGEST_JOB_NAME
from edldist.config import JobConfig
from edldist.config.problems import explain
from edldist.errors import ConfigError
from edldist.yamltext import parse_yaml
from edldist_launch.tune.cube import Cube
from edldist_launch.tune.space import Choices, Space

__all__ = ["Settings"]

_TRIALS_OWN = ("student", "checkpoint")
_WHY_NOT = {
    "teachers": "the teachers serve all trials at once, so that no trial can have others. Run a tuning for "
    "each, with --set; what a loss makes of them (their weights, a temperature) are arguments of the script",
    "prepare": "the preparation runs once, before the first trial",
    "name": "every trial has a name of its own",
}


class Settings:
    """The settings of a tuning: what the job itself says, and jobs with others in their place.

    Attributes:
        base: the job's own value of every key: the control's.

    Raises:
        ConfigError: the job has no such key, a trial cannot have a value of its own there, or the job's own
            value or one that may be tried is not allowed.
    """

    def __init__(self, space: Space, job: JobConfig) -> None:
        self._job = job
        self._seed = space.seed
        self.base = {key: _base(key, job, space.keys[key]) for key in space.keys}
        cube = Cube(space)
        self._check_base(cube)
        for key, domain in space.keys.items():
            tried = domain.choices if isinstance(domain, Choices) else cube.ends(key)
            for value in tried:
                self._check(key, value)
        self._first_seed = None if space.seed is None else _first_seed(space.seed, job)

    def seed(self, window: int) -> int | None:
        """The number that all trials of a window share; None without a key for it."""
        return None if self._first_seed is None else self._first_seed + window

    def job(self, number: int, values: Mapping[str, Any], seed: int | None) -> JobConfig:
        """The job of a trial."""
        document = self._document(values, seed)
        suffix = f"-{number:04d}"
        document["name"] = f"{self._job.name[: LONGEST_JOB_NAME - len(suffix)]}{suffix}"
        return JobConfig.model_validate(document)

    def overrides(self, values: Mapping[str, Any]) -> list[str]:
        """What ``edldist run --set`` needs for a job with these settings."""
        args = self._document(values, None)["student"]["args"]
        # JSON is YAML, too, and its quotes are none of the shell's.
        said = [f"{key}={json.dumps(value)}" for key, value in values.items() if not key.startswith("--")]
        if any(key.startswith("--") for key in values):
            said.append(f"student.args={json.dumps(args)}")
        return said

    def command(self, job: Sequence[str], values: Mapping[str, Any]) -> str:
        """A command for the shell that runs the job with these settings.

        Args:
            job: words that say which job.
        """
        options = [word for each in self.overrides(values) for word in ("--set", each)]
        return shlex.join(["edldist", "run", *job, *options])

    def _document(self, values: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
        document = self._job.model_dump()
        for key, value in values.items():
            _put(document, key, value)
        if seed is not None and self._seed is not None:
            _put(document, self._seed, seed)
        return document

    def _check_base(self, cube: Cube) -> None:
        try:
            cube.point(self.base)
        except ValueError as exc:
            key, value, allowed = exc.args
            raise ConfigError(
                f"keys.{key}: the job's own value {value!r}, which the control has, is not {allowed}: have "
                "the space hold it, or change the job"
            ) from exc

    def _check(self, key: str, value: Any) -> None:
        if key.startswith("--") and (value is None or isinstance(value, list | dict)):
            raise ConfigError(
                f"keys.{key}: an argument of the script cannot have the value {value!r}: give it "
                "texts or numbers"
            )
        document = self._job.model_dump()
        _put(document, key, value)
        try:
            JobConfig.model_validate(document)
        except ValidationError as exc:
            said = "; ".join(explain(error, JobConfig) for error in exc.errors())
            raise ConfigError(f"keys.{key}: the job could not have the value {value!r}: {said}") from exc


# --- one key ----------------------------------------------------------------------------------


def _base(key: str, job: JobConfig, domain: object) -> Any:
    """The job's own value, of the type that the domain's values have."""
    if key.startswith("--"):
        return _typed(_argument(key, job.student.args), domain)
    place: Any = job.model_dump()
    head = key.split(".")[0]
    if head not in _TRIALS_OWN:
        known = list(place)
        if head in known:
            why = _WHY_NOT.get(head, "it belongs to the fleet, which all trials share")
            raise ConfigError(f"keys.{key}: it cannot be tuned: {why}")
        raise _unknown(key, head, [*_TRIALS_OWN, *_flags(job.student.args)])
    for part in key.split("."):
        if isinstance(place, Mapping) and part in place:
            place = place[part]
        elif isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            place = place[int(part)]
        else:
            known = list(place) if isinstance(place, Mapping) else [str(n) for n in range(len(place or ()))]
            raise _unknown(key, part, known)
    return _typed(place, domain)


def _unknown(key: str, part: str, known: Sequence[str]) -> ConfigError:
    close = difflib.get_close_matches(part, known, n=1)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    has = ", ".join(f"`{each}`" for each in known) or "nothing"
    return ConfigError(f"keys.{key}: the job has no `{part}` there{hint} It has {has}")


def _flags(args: Sequence[str]) -> list[str]:
    return [arg.partition("=")[0] for arg in args if arg.startswith("--") and len(arg) > 2]


def _argument(flag: str, args: Sequence[str]) -> str:
    """The value of a script's argument: of one that is given twice, the last counts.

    Raises:
        ConfigError: it is not given, or has no value.
    """
    found = _where(flag, args)
    if found is None:
        known = _flags(args)
        close = difflib.get_close_matches(flag, known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else "."
        raise ConfigError(
            f"keys.{flag}: student.args has no {flag} with a value{hint} Give it there, with the control's "
            f"value. It has {', '.join(known) or 'none'}"
        )
    at, joined = found
    return args[at].partition("=")[2] if joined else args[at]


def _where(flag: str, args: Sequence[str]) -> tuple[int, bool] | None:
    """Which argument holds a flag's value, and whether it is ``--flag=value``."""
    for at in reversed(range(len(args))):
        if args[at].startswith(f"{flag}="):
            return at, True
        if args[at] == flag and at + 1 < len(args) and not args[at + 1].startswith("--"):
            return at + 1, False
    return None


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    """Set one key of a job in place; it is known to be there."""
    if key.startswith("--"):
        args = document["student"]["args"]
        found = _where(key, args)
        assert found is not None
        at, joined = found
        args[at] = f"{key}={value}" if joined else str(value) if not isinstance(value, bool) else value
        return
    *parents, last = key.split(".")
    place: Any = document
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def _typed(value: Any, domain: object) -> Any:
    """Text of the job as the number that it is, or as the choice that reads the same."""
    if isinstance(domain, Choices):
        for choice in domain.choices:
            if choice == value or str(choice) == str(value) or _number(choice) == _number(value) is not None:
                return choice
        return value
    number = _number(value)
    return value if number is None else number


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        try:
            value = parse_yaml(value, "a value")
        except ConfigError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _first_seed(key: str, job: JobConfig) -> int:
    value = _base(key, job, None)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"seed: {key} is {value!r} in the job, and windows count on from a whole number")
    return value
