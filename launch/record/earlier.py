"""An earlier run in an output folder: what is left of it, and whether a run may go on with it.

A checkpoint and a result are of one configuration. A run that takes up another one's checkpoint, or its
result, under a changed job file would say that the new configuration did what the old one did. So a
folder is gone on with only if the job is the same in everything that decides what is learnt; else somebody
has to say what is wanted.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edldist.checkpoint.manifest import MARKER
from edldist.checkpoint.stores.local import LocalStore
from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist.labeller import labels_ahead
from edldist.secret_names import is_secret

__all__ = [
    "Beginning",
    "EarlierRun",
    "deciding",
    "differences",
    "last_checkpoint",
    "read_result",
    "set_aside",
]

Beginning = Literal["resume", "fresh", "extend"]
"""How a run begins in a folder that holds an earlier one: go on with an unfinished run of the same job,
set the earlier one aside, or go on from its last checkpoint whatever has changed."""

RECORD = (
    *("job.yaml", "result.json", "events.jsonl", "history.json", "report.html", "curves.png"),
    *("stages.jsonl", "stages.old.jsonl"),
    *("logs", "checkpoints"),
    *("submission.json", "state.json", "asked.json", ".trackers.json", "tensorboard", "wandb"),
)
"""What a run writes itself. Anything else in its folder is not ours to move."""

# What changes how fast a job runs and not what it learns: an elastic job may have more or fewer of these.
_OF_A_TEACHER = (
    "replicas",
    "min_replicas",
    "device",
    "dataset_threads",
    "compile",
    "channels_last",
    "resources",
)
_OF_THE_STUDENT = (
    *("nnodes", "nproc_per_node", "max_restarts", "weight", "priority", "resources"),
    *("low_watermark", "high_watermark"),
)
_OF_THE_LABEL = ("batch_size", "shard_rows", "num_workers", *_OF_THE_STUDENT)
_OF_THE_JOB = ("checkpoint", "coordinator", "slurm", "kubernetes", "trackers")


@dataclass(frozen=True)
class EarlierRun:
    """What a folder holds of the run before.

    Attributes:
        job: as it was resolved then.
        result: what it ended with, or None: it was killed, or still runs.
        checkpoint: the step of its last whole checkpoint, or None.
    """

    job: JobConfig
    result: Mapping[str, Any] | None
    checkpoint: int | None

    @classmethod
    def read(cls, folder: Path) -> EarlierRun | None:
        """The earlier run of a folder, or None without one.

        Raises:
            ConfigError: its job cannot be read.
        """
        if (folder / "tune.json").exists():
            raise ConfigError(f"{folder} holds a tuning of edldist tune; choose another --output")
        path = folder / "job.yaml"
        if not path.exists():
            return None
        try:
            job = load_job(path)
        except ConfigError as exc:
            raise ConfigError(
                f"{folder} holds a job.yaml that cannot be read; choose another --output. It says:\n{exc}"
            ) from exc
        return cls(job, read_result(folder / "result.json"), last_checkpoint(folder))

    @property
    def finished(self) -> bool:
        """Whether it came to its end, so that there is nothing to go on with."""
        return self.result is not None and self.result.get("status") == "completed"

    def check(self, job: JobConfig, folder: Path, beginning: Beginning) -> None:
        """Refuse a job that this folder does not belong to, or that would pass for the earlier one.

        Raises:
            ConfigError: with what differs and what can be chosen.
        """
        if self.job.name != job.name:
            raise ConfigError(
                f"{folder} belongs to job {self.job.name!r}, this is job {job.name!r}; "
                "choose another --output"
            )
        changed = differences(self.job, job)
        if beginning != "resume" or not changed or not (self.finished or self.checkpoint is not None):
            return
        if self.finished:
            holds = f"the result of a finished run ({self.result and self.result.get('steps')} steps)"
        else:
            holds = f"an unfinished run, up to the checkpoint of step {self.checkpoint}"
        listed = "\n".join(f"  {difference}" for difference in changed)
        raise ConfigError(
            f"{folder} holds {holds} of another configuration:\n{listed}\n"
            "Choose: --output FOLDER for a run in another folder, --fresh to begin anew in this one (the "
            "earlier run is kept in it, in earlier-N), or --extend to go on from its last checkpoint with "
            "the changed job"
        )


def differences(earlier: JobConfig, now: JobConfig) -> list[str]:
    """What decides what a job learns and is not the same, one ``key: earlier -> now`` each."""
    before, after = deciding(earlier), deciding(now)
    return [
        f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    ]


def last_checkpoint(folder: Path) -> int | None:
    """The step of the latest whole checkpoint in a run's ``checkpoints/``; None without one."""
    store = LocalStore(folder / "checkpoints")
    with contextlib.suppress(OSError):
        return next(
            (step for step, name in store.checkpoints() if (store.folder(name) / MARKER).exists()), None
        )
    return None


def set_aside(folder: Path) -> Path | None:
    """Move what an earlier run recorded into ``earlier-N`` of its own folder; None if there is nothing.

    Raises:
        OSError: it cannot be moved.
    """
    recorded = [folder / name for name in RECORD if (folder / name).exists()]
    if not recorded:
        return None
    number = 1
    while (aside := folder / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for path in recorded:
        path.rename(aside / path.name)
    return aside


def deciding(job: JobConfig) -> dict[str, Any]:
    """The keys that decide, with dots and indices, and their values."""
    document = job.model_dump(exclude=set(_OF_THE_JOB))
    for key in _OF_THE_STUDENT:
        document["student"].pop(key, None)
    if labels_ahead(job):
        for key in _OF_THE_LABEL:
            document["label"].pop(key, None)
    else:
        document.pop("label")
    for teacher in document["teachers"]:
        for key in (*_OF_A_TEACHER, *(() if job.deterministic else ("batch_size",))):
            teacher.pop(key, None)
    for section in (document["student"], document.get("label") or {}, *document["teachers"]):
        if "env" in section:  # a password decides nothing, may be a newer one, and is not to be shown
            section["env"] = {name: text for name, text in section["env"].items() if not is_secret(name)}
    leaves: dict[str, Any] = {}
    _flatten("", document, leaves)
    return leaves


def _flatten(key: str, value: Any, leaves: dict[str, Any]) -> None:
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            _flatten(f"{key}.{name}" if key else str(name), item, leaves)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            _flatten(f"{key}[{number}]", item, leaves)
    elif value not in (None, "", [], {}):
        leaves[key] = value


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


def read_result(path: Path) -> dict[str, Any] | None:
    """What a ``result.json`` says; None where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        document = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(document, dict):
            return document
    return None
