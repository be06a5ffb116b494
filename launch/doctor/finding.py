"""What a check found: well, to be looked at, or broken; and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "fail", "ok", "warn"]

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Attributes:
        check: what was looked at.
        level: ``warn`` for what jobs may meet one day, ``fail`` for what they cannot run with.
        said: what was found, with its figures.
        remedy: what to do; empty where all is well.
    """

    check: str
    level: Level
    said: str
    remedy: str = ""


def ok(check: str, said: str) -> Finding:
    return Finding(check, "ok", said)


def warn(check: str, said: str, remedy: str) -> Finding:
    return Finding(check, "warn", said, remedy)


def fail(check: str, said: str, remedy: str) -> Finding:
    return Finding(check, "fail", said, remedy)
