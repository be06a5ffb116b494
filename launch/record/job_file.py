"""The job file that a run keeps in its folder."""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig, dump_job
from edldist.files import replace_file
from edldist.secret_names import without_secrets

__all__ = ["replace_job"]


def replace_job(path: Path, job: JobConfig) -> None:
    """Write a job down, for this user's eyes alone (mode 0600) where variables that it sets hold secrets.

    Raises:
        OSError: it was not written; the former content stands.
    """
    document = job.model_dump()
    replace_file(path, dump_job(job).encode(), private=without_secrets(document) != document)
