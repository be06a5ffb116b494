"""``edldist init``: a small job that runs at once, to be made one's own."""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path

from edldist.errors import ConfigError
from edldist_launch.view.console import near

__all__ = ["FILES", "make_starter"]

FILES = ("job.yaml", "models.py", "student.py", "README.md")
_NAME = "@NAME@"
_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def make_starter(folder: Path) -> Path:
    """Write a job folder that is named for its job: everything, or nothing.

    Raises:
        ConfigError: its name is no job's, it exists, or it cannot be written.
    """
    name = folder.name
    if not _ALLOWED.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot name a job: use up to 100 letters, digits, `_`, `.` and `-`, the first "
            "a letter, a digit or `_`"
        )
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{near(folder)} exists: choose another name, or remove it first")
    if folder.parent.exists() and not folder.parent.is_dir():
        raise ConfigError(f"{near(folder.parent)} is a file: no folder can be made in it")
    made = False
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        made = True
        for file in FILES:
            (folder / file).write_text(_text(file).replace(_NAME, name), encoding="utf-8")
    except OSError as exc:
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        raise ConfigError(f"cannot write {near(folder)}: {exc.strerror or exc}") from exc
    return folder


def _text(file: str) -> str:
    """A file as it comes with this installation, where those of Python have another ending."""
    source = f"{file}.txt" if file.endswith(".py") else file
    return (resources.files("edldist_launch") / "starter" / source).read_text(encoding="utf-8")
