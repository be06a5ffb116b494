"""What runs in the student's place where a data set is labelled ahead of time (``edldist label``).

Imports no torch: the launcher asks where its script lies.
"""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig

__all__ = ["SCRIPT", "VARIABLE", "labels_ahead"]

SCRIPT = Path(__file__).with_name("__main__.py")
"""The script of each rank."""
VARIABLE = "EDLDIST_LABEL"
"""In which a rank finds the section ``label`` of the job file, as JSON."""


def labels_ahead(job: JobConfig) -> bool:
    """Whether a job labels, and does not train: a file may have what both need."""
    return job.label is not None and Path(job.student.script) == SCRIPT
