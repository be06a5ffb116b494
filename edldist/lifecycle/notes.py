"""Lines that a rank leaves for the supervisor of its node (``edldist student``), which acts on them::

    heeds NAME         the script has called should_stop once: asked to stop, this rank saves first
    stopped NAME       it ends because it was asked to, not because its work is done
    end NAME REASON    it ends with an error that a restart would only meet again (verdict)

NAME is that of its process. Without a supervisor nothing happens here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from edldist.wire.process import process_id

__all__ = ["NOTES_VARIABLE", "leave_note"]

NOTES_VARIABLE = "EDLDIST_RANK_NOTES"
"""The file that the supervisor reads."""


def leave_note(kind: str, reason: str = "", environment: Mapping[str, str] = os.environ) -> None:
    """Append a line about this process. One that cannot be written is said, and changes nothing else."""
    notes = environment.get(NOTES_VARIABLE)
    if not notes:
        return
    try:
        with open(notes, "a", encoding="utf-8", errors="replace") as book:
            book.write(" ".join(filter(None, (kind, process_id(), reason))) + "\n")
    except OSError as exc:
        print(f"cannot leave a note in {notes}: {exc.strerror}", file=sys.stderr)
