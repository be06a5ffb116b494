"""Remarks: what somebody did to a running job, in the words of who did it."""

from __future__ import annotations

from edldist.observe import reporter

__all__ = ["remark"]


def remark(text: str) -> None:
    """Put a line into the job's ``events.jsonl`` and on its screen, from any process that knows the job.

    Does nothing where ``EDLDIST_COORDINATOR`` is not set.
    """
    reporter.event("remark", text=text)
