"""The output folder of a tuning."""

from __future__ import annotations

from pathlib import Path

from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist_launch.record.earlier import differences
from edldist_launch.record.folder import RecordFolder
from edldist_launch.tune.journal import Journal, Kept
from edldist_launch.tune.space import Space, space_differences

__all__ = ["TuningFolder"]

_OF_A_RUN = ("job.yaml", "result.json", "events.jsonl", "checkpoints", "submission.json")


class TuningFolder(RecordFolder):
    """Holds the folder of one tuning: ``tune.json``, ``job.yaml``, the fleet's events and logs, ``trials/``.

    Args:
        path: the folder; it is made where it is missing.
        job: as resolved.
        space: what is tried.
        digest: tells this tuning from others (``tuning_digest``).

    Attributes:
        earlier: what an earlier process left of this very tuning, or None.
        journal: that file.

    Raises (on opening):
        ConfigError: the folder holds another tuning, or a run, is held by another process, or cannot be
            written.
    """

    def __init__(self, path: Path, job: JobConfig, space: Space, digest: str) -> None:
        self._job, self._space, self.digest = job, space, digest
        self.earlier: Kept | None = None
        self.journal = Journal(path.absolute())
        super().__init__(path)

    def _begin(self) -> None:
        self.earlier = self.journal.read()
        if self.earlier is not None:
            self._check(self.earlier)
        elif found := [name for name in _OF_A_RUN if (self.path / name).exists()]:
            raise ConfigError(
                f"{self.path} holds a run of edldist run ({', '.join(found)}) and no tuning: choose another "
                "--output"
            )
        (self.path / "logs").mkdir(exist_ok=True)
        (self.path / "trials").mkdir(exist_ok=True)
        self.write_job(self._job)
        super()._begin()

    def _check(self, kept: Kept) -> None:
        if kept.digest == self.digest:
            return
        changed = space_differences(kept.space, self._space)
        path = self.path / "job.yaml"
        if path.exists():
            changed += differences(load_job(path), self._job)
        listed = "".join(f"\n  {each}" for each in changed)
        raise ConfigError(
            f"{self.path} holds a tuning of another space or job (digest {kept.digest}, this one's is "
            f"{self.digest}); its {len(kept.trials)} trials say nothing about this one:{listed}\n"
            "choose another --output"
        )
