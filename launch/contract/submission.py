"""Where a job runs: ``submission.json`` in its output folder, by which other commands find it again."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from edldist.errors import ConfigError
from edldist.files import replace_file

__all__ = ["BackendName", "Submission", "find_submission", "forget_submission"]

NAME = "submission.json"
BackendName = Literal["local", "slurm", "kubernetes"]


@dataclass(frozen=True)
class Submission:
    """A job that was handed to an engine.

    Attributes:
        backend: which engine.
        job: the job's name.
        submitted_at: unix seconds.
        engine: what that engine's backend needs to find the job again (job ids, a namespace, a process id).
        link: variables with which others reach the job: where its keys are, or that it has none.
    """

    backend: BackendName
    job: str
    submitted_at: float = field(default_factory=time.time)
    engine: dict[str, Any] = field(default_factory=dict)
    link: dict[str, str] = field(default_factory=dict)

    def write(self, output: Path) -> None:
        """Replace the record of a folder; a reader sees the old one or the whole new one.

        Raises:
            OSError: it was not written.
        """
        replace_file(output / NAME, f"{json.dumps(asdict(self), indent=2)}\n".encode())


_form = TypeAdapter(Submission)


def find_submission(output: Path) -> Submission | None:
    """What was submitted into a folder; None where nothing was.

    Raises:
        ConfigError: the record cannot be read.
    """
    path = output / NAME
    try:
        return _form.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        raise ConfigError(f"{path} is no record of a submitted job: {exc.errors()[0]['msg']}") from exc


def forget_submission(output: Path) -> None:
    """The job was removed from its engine; does nothing where no record is."""
    with contextlib.suppress(FileNotFoundError):
        (output / NAME).unlink()
