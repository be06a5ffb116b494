"""Whether a job can write down what it does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edldist.files import lock_file, sync
from edldist_launch.doctor.finding import Finding, fail, ok, warn

__all__ = ["check_output", "check_temporary"]

LEAST_FREE_BYTES = 64 << 20
GOOD_FREE_BYTES = 1 << 30


def check_output(folder: Path) -> Iterator[Finding]:
    """The folder for output, or that above it in which it would be made: written, synced, renamed, locked."""
    place = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    where = f"{folder}" if place == folder else f"{place}, in which {folder} would be made,"
    remedy = "choose another --output, or make the folder yours (chown, chmod)"
    if not place.is_dir():
        yield fail("output", f"{place} is a file", remedy)
        return
    try:
        _try(place)
        free = shutil.disk_usage(place).free
    except OSError as exc:
        yield fail("output", f"{where} cannot be written: {exc.strerror}", remedy)
        return
    said = f"{where} can be written; {free / (1 << 30):.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        yield fail("output", f"{said}: no checkpoint fits", "make room, or choose another --output")
    elif free < GOOD_FREE_BYTES:
        yield warn("output", f"{said}: checkpoints of a few MiB fit", "make room, or choose another --output")
    else:
        yield ok("output", said)


def check_temporary() -> Iterator[Finding]:
    """Where Python keeps files for a moment, as a student node does what its ranks tell it."""
    try:
        with tempfile.TemporaryDirectory(prefix="edldist-doctor-") as made:
            _try(Path(made))
    except OSError as exc:
        yield fail(
            "temporary files",
            f"there is no folder for them: {exc.strerror or exc}",
            "set TMPDIR to a folder that can be written",
        )
        return
    yield ok("temporary files", tempfile.gettempdir())


def _try(place: Path) -> None:
    """Do in a folder what a job does in its own; nothing of it stays."""
    draft, whole = (place / f".edldist-doctor-{os.getpid()}{end}" for end in (".new", ""))
    try:
        with draft.open("w") as file:
            file.write("a line\n")
            file.flush()
            lock_file(file.fileno(), draft)
        sync(draft)
        os.replace(draft, whole)
        sync(place)
    finally:
        draft.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)
