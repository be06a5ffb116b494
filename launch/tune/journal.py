"""``tune.json``: every trial of a tuning, written before it starts and after it ends.

One file, replaced as a whole: a reader, and a tuning that goes on after ``kill -9``, see all of the former
state or all of the next one. So no trial is lost, and none is run twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from edldist.errors import ConfigError, LaunchError
from edldist.files import replace_file
from edldist_launch.record.eventfile import json_text
from edldist_launch.record.trials import trial_folder

__all__ = ["NAME", "Journal", "Kept", "Trial", "TrialState"]

NAME = "tune.json"
TrialState = Literal["planned", "running", "done", "stopped", "failed"]


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial: a job with settings of its own.

    Attributes:
        number: counted over the whole tuning; also the name of its folder.
        window: trials of one window are compared with the controls of that window.
        control: whether it has the job's own settings.
        values: its settings.
        seed: the number that the trials of its window share, or None.
        state: stopped: it was without hope and was ended early; failed: it has no figures that count.
        metrics: what the script reported last of each; of a stopped one, by then.
        beside: of a stopped one, the control's metrics at the same step.
        steps: how far it came.
        reason: why it was stopped, or failed.
    """

    number: int
    window: int
    control: bool
    values: dict[str, Any]
    seed: int | None = None
    state: TrialState = "planned"
    metrics: dict[str, float] = {}
    beside: dict[str, float] = {}
    steps: int = 0
    reason: str = ""

    @property
    def ended(self) -> bool:
        return self.state in ("done", "stopped", "failed")

    @property
    def folder(self) -> str:
        """Below that of the tuning."""
        return trial_folder(self.number)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the file says that a tuning goes on from; what it says beside that is for readers."""

    job: str
    digest: str
    space: dict[str, Any]
    trials: list[Trial]


class Journal:
    """The file of one tuning. One process at a time writes it: whoever holds the folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def read(self) -> Kept | None:
        """What an earlier process left; None where there was none.

        Raises:
            ConfigError: it cannot be read.
        """
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as exc:
            raise ConfigError(f"{self._path} cannot be read ({exc}): choose another --output") from exc

    def write(self, kept: Kept, told: Mapping[str, Any], by_trial: Sequence[Mapping[str, Any]]) -> None:
        """Replace the file; what it says is on the disk when this returns.

        Args:
            told: for readers: how it stands with the tuning.
            by_trial: for readers: of each trial, its ratios.

        Raises:
            LaunchError: it was not written. The former content stands, and nothing may start on it.
        """
        document = msgspec.to_builtins(kept)
        trials = [{**trial, **more} for trial, more in zip(document.pop("trials"), by_trial, strict=True)]
        text = json_text({**document, **told, "trials": trials}, indent=1)
        try:
            replace_file(self._path, f"{text}\n".encode())
        except OSError as exc:
            raise LaunchError(
                f"cannot write {self._path} ({exc.strerror or exc}), and no trial starts that is not written "
                "down first; the same command goes on"
            ) from exc

    def exists(self) -> bool:
        with contextlib.suppress(OSError):
            return self._path.exists()
        return False
