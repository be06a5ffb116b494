"""Weights & Biases: a run of the project that ``WANDB_PROJECT`` names."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

from edldist_launch.track.tracker import Figures, Run, TrackerError, not_importable

__all__ = ["WandbRun"]

PROJECT = "edldist"
START_S = 30


class WandbRun:
    """One run; its own variables (``WANDB_PROJECT``, ``WANDB_MODE``, ``WANDB_ENTITY``, ...) say the rest.

    It is quiet, takes over neither the terminal nor signals, and never asks for a key.
    """

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as exc:
            raise not_importable("wandb", exc) from exc
        online = os.environ.get("WANDB_MODE", "online") not in ("offline", "dryrun", "disabled")
        wandb.setup(settings=wandb.Settings(silent=True, console="off", init_timeout=START_S))
        if online and not wandb.login(prompt=False, verify=False):  # else it would ask at the terminal
            raise TrackerError(
                "wandb has no API key: run 'wandb login', set WANDB_API_KEY, or WANDB_MODE=offline to keep "
                "the figures here"
            )
        self.id = run.known.get("wandb") or os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=os.environ.get("WANDB_NAME") or run.job,
            id=self.id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(run.folder),
            config=dict(run.settings),
        )
        # Its own count of steps only grows; a run that goes back to a checkpoint has some of them twice.
        self._run.define_metric("*", step_metric="step")

    def log(self, figures: Figures) -> None:
        self._run.log({**figures.values, "step": figures.step})

    def end(self, status: str, result: Mapping[str, float]) -> None:
        self._run.summary.update({**result, "status": status})
        self._run.finish(exit_code=0 if status == "completed" else 1)
