"""The section of a Slurm cluster: where its jobs go, and what it wants to know of them.

What a process needs (CPUs, memory, GPUs) stands with its role (``resources``); here is what only this cluster
has a name for. A key may be given for the whole job and again for a role, which then counts.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edldist.bounds import MOST
from edldist.config.section import ONLY_THESE_NAMES, TEACHER_NAME, Section, whole

__all__ = ["LONGEST_WARNING_S", "SlurmConfig", "SlurmRoleConfig", "time_limit_s"]

LONGEST_WARNING_S = 65_535
"""The most that Slurm's ``--signal`` takes."""
SIGNAL_EARLY_S = 60
"""How much earlier than ``--signal`` says Slurm may signal: it looks once a minute or so."""
_NAMES = r"^([A-Za-z0-9_.@+-]+(,[A-Za-z0-9_.@+-]+)*)?$"
_NAMES_FORM = "letters, digits, `_`, `.`, `@`, `+` and `-`, several parted by commas"
_FEATURES = r"^[A-Za-z0-9_.:=,&|*()\[\]+-]*$"
_GRES = r"^([A-Za-z0-9_.:=/-]+(,[A-Za-z0-9_.:=/-]+)*)?$"
_TIME = r"^(\d{1,8}(:[0-5]?\d(:[0-5]?\d)?)?|\d{1,5}-\d{1,2}(:[0-5]?\d(:[0-5]?\d)?)?)$"
_NONE = '"" for none, or null'
_LINE = r"^[^\x00-\x1f\x7f]*$"
_OPTION = r"^--[a-z][a-z0-9-]*(=[^\x00-\x1f\x7f\"'\\#]*)?$"
_OURS = {
    **{key: f"write it as `{key}`" for key in ("partition", "account", "qos", "constraint", "gres", "nice")},
    **{key: f"write it as `{key}`" for key in ("reservation",)},
    **{"time": "write it as `time_limit`", "signal": "write its seconds as `warn_s`"},
    **{key: "write it as `requeue`" for key in ("requeue", "no-requeue")},
    **{
        key: "write it as `resources` of the role"
        for key in (*("cpus-per-task", "mem", "mem-per-cpu", "gpus", "gpus-per-node", "gpus-per-task"),)
    },
    **{
        key: "edldist gives it"
        for key in (
            *("array", "job-name", "comment", "output", "error", "open-mode", "chdir", "dependency", "hold"),
            *("export", "nodes", "ntasks", "parsable", "wrap", "kill-on-invalid-dep", "wait", "test-only"),
        )
    },
}


def _minutes(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_TimeLimit = Annotated[
    str,
    Field(pattern=f"^$|{_TIME}"),
    BeforeValidator(
        _minutes,
        json_schema_input_type=Annotated[str, Field(pattern=f"^$|{_TIME}")]
        | Annotated[int, Field(ge=0, le=MOST)],
    ),
]


class SlurmRoleConfig(Section):
    """Where the jobs of one role go.

    What is not given, or null, is as for the whole job; an empty text or list is nothing at all, whatever the
    whole job has.
    """

    partition: str | None = Field(
        default=None, pattern=_NAMES, max_length=1000, description=f"its name ({_NAMES_FORM}), {_NONE}"
    )
    account: str | None = Field(
        default=None, pattern=_NAMES, max_length=1000, description=f"its name ({_NAMES_FORM}), {_NONE}"
    )
    qos: str | None = Field(
        default=None, pattern=_NAMES, max_length=1000, description=f"its name ({_NAMES_FORM}), {_NONE}"
    )
    reservation: str | None = Field(
        default=None, pattern=_NAMES, max_length=1000, description=f"its name ({_NAMES_FORM}), {_NONE}"
    )
    constraint: str | None = Field(
        default=None,
        pattern=_FEATURES,
        max_length=1000,
        description=f"features that the hosts must have, as in `a100` or `a100|h100`, {_NONE}",
    )
    gres: str | None = Field(
        default=None,
        pattern=_GRES,
        max_length=1000,
        description=f"generic resources besides GPUs, as in `accel:fast:1,license:2`, {_NONE}",
    )
    time_limit: _TimeLimit | None = Field(
        default=None,
        description="as Slurm writes it: minutes, hours:minutes:seconds, days-hours:minutes:seconds and the "
        'like, "" for that of the partition, or null',
    )
    nice: int | None = Field(default=None, ge=0, le=MOST, description=f"{whole(0, MOST)}, or null")
    python: str | None = Field(
        default=None,
        pattern=_LINE,
        max_length=4000,
        description='the interpreter on those hosts, which has edldist, "" for the one of `submit`, or null',
    )
    setup: list[Annotated[str, Field(pattern=r"^[^\x00]+$")]] | None = Field(
        default=None,
        description="a list of lines for the shell, run before all else, as in [module load cuda], or null",
    )
    options: list[Annotated[str, Field(pattern=_OPTION, max_length=4000)]] | None = Field(
        default=None,
        description="a list of further options of sbatch, as in [--exclusive, --mail-type=END], or null",
    )

    @field_validator("options")
    @classmethod
    def _not_ours(cls, options: list[str] | None) -> list[str] | None:
        for option in options or ():
            name = option.removeprefix("--").partition("=")[0]
            if name in _OURS:
                raise ValueError(f"{option}: {_OURS[name]}")
        return options


class SlurmConfig(SlurmRoleConfig):
    """A Slurm cluster; each role may have a place of its own.

    The coordinator belongs into a partition that is not preempted.
    """

    warn_s: int = Field(
        default=120,
        ge=1,
        le=LONGEST_WARNING_S,
        description="seconds before a time limit at which processes are asked to save and leave, "
        f"{whole(1, LONGEST_WARNING_S)}",
    )
    requeue: bool = Field(
        default=True, description="true, or false where Slurm shall bring back nothing that it took"
    )
    poll_s: float = Field(
        default=10.0,
        ge=0.5,
        le=3600,
        allow_inf_nan=False,
        description="seconds between two looks at the queue, from 0.5 to 3600",
    )
    prepare: SlurmRoleConfig = Field(
        default_factory=SlurmRoleConfig, description="a mapping, as in {partition: short}"
    )
    coordinator: SlurmRoleConfig = Field(
        default_factory=SlurmRoleConfig, description="a mapping, as in {partition: cpu}"
    )
    student: SlurmRoleConfig = Field(
        default_factory=SlurmRoleConfig, description="a mapping, as in {partition: gpu}"
    )
    teachers: Annotated[
        dict[Annotated[str, Field(pattern=TEACHER_NAME)], SlurmRoleConfig],
        Field(json_schema_extra=ONLY_THESE_NAMES),
    ] = Field(
        default={}, description="a mapping from names of teachers to such, as in {big: {partition: gpu}}"
    )

    @model_validator(mode="after")
    def _time_after_the_warning(self) -> SlurmConfig:
        for role in (self, self.prepare, self.coordinator, self.student, *self.teachers.values()):
            if role.time_limit and time_limit_s(role.time_limit) <= self.warn_s + SIGNAL_EARLY_S:
                raise ValueError(
                    f"with a time_limit of {role.time_limit} the warning of warn_s={self.warn_s} s, which "
                    f"Slurm may give {SIGNAL_EARLY_S} s earlier, comes at the very start: give more time, or "
                    "a smaller warn_s"
                )
        return self

    def of(self, kind: str, name: str) -> SlurmRoleConfig:
        """Where a role's jobs go: its own keys over those of the whole job.

        Args:
            kind: prepare, coordinator, teacher or student.
            name: of the teacher group.
        """
        own: SlurmRoleConfig = (
            self.teachers.get(name, SlurmRoleConfig()) if kind == "teacher" else getattr(self, kind)
        )
        values: dict[str, Any] = {}
        for key in SlurmRoleConfig.model_fields:
            value = getattr(own, key)
            values[key] = (getattr(self, key) if value is None else value) or None
        return SlurmRoleConfig(**values)


def time_limit_s(text: str) -> int:
    """Seconds of a time limit as Slurm writes it.

    Raises:
        ValueError: it has another form.
    """
    if not re.fullmatch(_TIME[1:-1], text, re.ASCII):
        raise ValueError(f"{text!r} is no time limit")
    days, dash, rest = text.rpartition("-")
    numbers = [int(part) for part in rest.split(":")]
    units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
    return int(days or 0) * 86_400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))
