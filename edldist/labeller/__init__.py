"""What runs in the student's place where a data set is labelled ahead of time (``edldist label``).

Imports no torch: the launcher asks for its script.
"""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig

__all__ = ["SCRIPT", "VARIABLE", "labels_ahead", "script_file"]

SCRIPT = "edldist:labeller"
"""In the place of a script's path: the labeller of whichever installation runs the job, in an image, too."""
VARIABLE = "EDLDIST_LABEL"
"""In which a rank finds the section ``label`` of the job file, as JSON."""


def labels_ahead(job: JobConfig) -> bool:
    """Whether a job labels, and does not train: a file may have what both need."""
    return job.label is not None and job.student.script == SCRIPT


def script_file(script: str) -> str:
    """The file that a student node runs: of ``SCRIPT`` this installation's own."""
    return str(Path(__file__).with_name("__main__.py")) if script == SCRIPT else script
