"""Where the trials of a tuning lie in its folder, and what their processes are called outside of it."""

from __future__ import annotations

from pathlib import Path

__all__ = ["process_of_trial", "trial_folder", "trial_folders"]

_TRIALS = "trials"


def trial_folder(number: int) -> str:
    """Of a trial, below the folder of its tuning: ``trials/0007``."""
    return f"{_TRIALS}/{number:04d}"


def trial_folders(output: Path) -> list[tuple[int, Path]]:
    """The trials that a folder holds, by their numbers; none where it is not that of a tuning."""
    found = [path for path in (output / _TRIALS).glob("*") if path.name.isascii() and path.name.isdecimal()]
    return sorted((int(path.name), path) for path in found)


def process_of_trial(number: int, process: str) -> str:
    """What a process of a trial is called outside of it, where every trial has a ``student-0``."""
    return f"trial-{number}/{process}"
