"""When a data set has been labelled: after how many passes over what is missing. Pure.

::

    read what is missing ── labels of all of it are in files ──> done
             ^          └── samples were left out as poison, and no others ──> done, with gaps
             └── some are missing, fewer than before
                        └── no fewer than before ──> the store does not take them
"""

from __future__ import annotations

from typing import Literal

from edldist.errors import StoreError

__all__ = ["Passes", "Verdict"]

Verdict = Literal["again", "done"]


class Passes:
    """Judges each pass over a data set by what is missing behind it.

    Attributes:
        number: passes that were judged.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: int | None = None

    def judge(self, missing: int, skipped: int, trouble: str) -> Verdict:
        """What follows a pass.

        Args:
            missing: samples of this rank whose labels are in no file of the store.
            skipped: those of them that no worker could label, and that the job leaves out.
            trouble: why the store does not write, as far as it knows; may be empty.

        Raises:
            StoreError: another pass would find what this one found.
        """
        self.number += 1
        before, self._before = self._before, missing
        if missing <= skipped:
            return "done"
        if trouble or (before is not None and missing >= before):
            raise StoreError(
                f"{missing - skipped:,} samples were labelled, and their labels are in no file of the store: "
                + (trouble or "it takes no more of them. Raise store.disk, or choose another store")
                + ". What is in files stays; the same command goes on from there"
            )
        return "again"
