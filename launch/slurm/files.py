"""The small files of a job by which its processes, its placer and people's commands tell each other things.

Each is written whole, and read by anybody: a placer that starts on another host takes up what they say.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edldist.errors import LaunchError
from edldist.files import replace_file
from edldist_launch.slurm.layout import Layout

__all__ = ["JobFiles"]


class JobFiles:
    """What lies in the ``slurm`` folder of one job.

    Raises (everywhere):
        LaunchError: a file cannot be written.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def begin(self, scripts: Mapping[Path, str]) -> None:
        """Make the folders and the job scripts, and forget what a former run of the job has left."""
        layout = self.layout
        try:
            shutil.rmtree(layout.ended, ignore_errors=True)
            for path in (layout.wanted_file, layout.stop_file, layout.placer_file, layout.address_file):
                path.unlink(missing_ok=True)
            for folder in (layout.ended, layout.slurm_logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise LaunchError(f"cannot write {layout.folder}: {exc.strerror}") from exc
        for path, text in scripts.items():
            _write(path, text, private=True)  # it sets the variables of the job file, and so its secrets

    # --- how processes ended ------------------------------------------------------------------------

    def ended(self) -> dict[str, int]:
        """Exit codes that processes left behind, by what these are called."""
        codes = {}
        with contextlib.suppress(OSError):
            for path in self.layout.ended.iterdir():
                with contextlib.suppress(OSError, ValueError):  # one that is being replaced, or no code
                    if not path.name.startswith("."):
                        codes[path.name] = int(path.read_text())
        return codes

    def forget(self, process: str) -> None:
        """A process starts anew."""
        with contextlib.suppress(OSError):
            (self.layout.ended / process).unlink(missing_ok=True)

    # --- how many there should be, and whether there should be any -------------------------------------

    def wanted(self) -> dict[str, int]:
        """How many processes of a role the placer keeps, as far as it said so."""
        return {role: n for role, n in _read(self.layout.wanted_file).items() if isinstance(n, int)}

    def note_wanted(self, numbers: Mapping[str, int]) -> None:
        """Say how many processes of a role there should be."""
        if self.wanted() != numbers:
            _write(self.layout.wanted_file, json.dumps(dict(numbers)) + "\n")

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the job to end."""
        return self.layout.stop_file.exists()

    def ask_stop(self) -> None:
        _write(self.layout.stop_file, "")

    # --- who is in charge ---------------------------------------------------------------------------

    def take_charge(self, placer: str) -> None:
        """From now on this placer acts, and no other one does."""
        _write(self.layout.placer_file, json.dumps({"placer": placer}) + "\n")

    def in_charge(self, placer: str) -> bool:
        """Whether no other placer has taken over since."""
        return bool(_read(self.layout.placer_file).get("placer", placer) == placer)


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        document = json.loads(path.read_bytes())
        if isinstance(document, dict):
            return document
    return {}


def _write(path: Path, text: str, *, private: bool = False) -> None:
    try:
        replace_file(path, text.encode(), private=private)
    except OSError as exc:
        raise LaunchError(f"cannot write {path}: {exc.strerror}") from exc
