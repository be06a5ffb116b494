"""From what happens in a job to its trackers, in a thread of its own.

Nothing here may hold a job up or end it: whoever watches the job only hands over, what waits is bounded, and
a tracker that raises is said once and asked no more. A library is imported when the first figures are there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import queue
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from edldist.files import replace_file
from edldist.secret_names import words_without_secrets
from edldist_launch.track.choice import Chosen
from edldist_launch.track.mlflow_run import MlflowRun
from edldist_launch.track.tensorboard_files import TensorBoardFiles
from edldist_launch.track.tracker import Figures, Run, Tracker, not_installed
from edldist_launch.track.wandb_run import WandbRun

__all__ = ["END_S", "TrackerFeed"]

logger = logging.getLogger(__name__)

END_S = 20.0
"""How long the end of a job waits for trackers that still send."""
MOST_WAITING = 10_000
_IDS = ".trackers.json"
_POSITION = ("step", "steps", "epochs")
_LINE = ("t", "event", "rank")
_OF_JOB = ("samples_per_s", "workers", "buffered", "starved_s", "skipped_samples")

_MAKERS: Mapping[str, Callable[[Run], Tracker]] = {
    "tensorboard": lambda run: TensorBoardFiles(run, os.environ.get("TENSORBOARD_LOGGING_DIR") or None),
    "wandb": WandbRun,
    "mlflow": MlflowRun,
}
_End = tuple[str, Mapping[str, float]]


class TrackerFeed:
    """Hands figures to trackers. ``take`` and ``end`` are for the thread that watches the job.

    Args:
        chosen: which trackers.
        run: what they are told of the run.
        makers: how each is made; only tests give others.
    """

    def __init__(
        self,
        chosen: Sequence[Chosen],
        run: Run,
        makers: Mapping[str, Callable[[Run], Tracker]] = _MAKERS,
    ) -> None:
        self.chosen = chosen
        self._run = run
        self._makers = makers
        self._waiting: queue.SimpleQueue[Figures | _End] = queue.SimpleQueue()
        self._hurry = False  # figures that still wait are left out, so that a tracker hears of the end
        self._trackers: dict[str, Tracker] = {}
        self._step = 0
        self._behind = False  # said once
        self._thread = threading.Thread(target=self._feed, name="edldist-trackers", daemon=True)

    def words(self) -> list[str]:
        """Where figures will go and why, for the person who runs the job; a line each. Imports nothing."""
        return [self._way(each) for each in self.chosen]

    def take(self, line: Mapping[str, Any]) -> None:
        """A line of ``events.jsonl``: what rank 0 reported, and how the job gets on, are figures."""
        if not self.chosen:
            return
        if line.get("event") == "report" and line.get("rank") == 0:
            step = line.get("step")
            if isinstance(step, int) and not isinstance(step, bool):
                self._step = step
            values = {key: line[key] for key in line if key not in _POSITION + _LINE}
        elif line.get("event") == "progress":
            values = {f"edldist/{key}": line[key] for key in _OF_JOB if key in line}
        else:
            return
        if numbers := _numbers(values):
            self._put(Figures(self._step, float(line["t"]), numbers))

    def end(self, status: str, metrics: Mapping[str, Any]) -> None:
        """The run is over; wait a while for what is still to be sent.

        Args:
            metrics: the last value of each figure.
        """
        if not self._thread.ident:
            return  # nobody reported anything: nothing was begun
        self._waiting.put((status, _numbers(metrics)))  # whoever does not keep up has to hear of it, too
        self._thread.join(END_S / 2)
        self._hurry = True
        self._thread.join(END_S / 2)
        if self._thread.is_alive():
            names = ", ".join(each.name for each in self.chosen)
            logger.warning("trackers (%s) have not taken all figures within %g s: left alone", names, END_S)

    def _put(self, figures: Figures) -> None:
        if not self._thread.ident:
            self._thread.start()
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(figures)
        elif not self._behind:
            self._behind = True
            logger.warning("trackers do not keep up: figures are left out meanwhile")

    def _way(self, each: Chosen) -> str:
        if find_spec(each.name) is not None:
            return f"figures go to {each.name} ({each.why})"
        return f"no figures will go to {each.name} ({each.why}), and the job runs: {not_installed(each.name)}"

    # --- the feed's own thread ------------------------------------------------------------------

    def _feed(self) -> None:
        self._open()
        while True:
            item = self._waiting.get()
            if self._hurry and isinstance(item, Figures):
                continue
            for name in list(self._trackers):
                self._tell(name, item)
            if isinstance(item, tuple):
                return

    def _open(self) -> None:
        ids = self._kept_ids()
        run = replace(self._run, known=ids)
        for each in self.chosen:
            try:
                tracker = self._makers[each.name](run)
                if tracker.id:
                    ids[each.name] = tracker.id
                self._trackers[each.name] = tracker
            except Exception as exc:  # of a library of others
                self._give_up(each.name, exc)
        if ids:
            with contextlib.suppress(OSError):
                replace_file(self._run.folder / _IDS, json.dumps(ids).encode())

    def _kept_ids(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            kept = json.loads((self._run.folder / _IDS).read_bytes())
            if isinstance(kept, dict):
                return {str(name): str(own) for name, own in kept.items()}
        return {}

    def _tell(self, name: str, item: Figures | _End) -> None:
        tracker = self._trackers[name]
        try:
            if isinstance(item, Figures):
                tracker.log(item)
            else:
                tracker.end(*item)
        except Exception as exc:  # of a library of others
            del self._trackers[name]
            self._give_up(name, exc)

    def _give_up(self, name: str, exc: Exception) -> None:
        """Say it once, without the keys and passwords that a library may quote."""
        reason = f"{exc}".strip().partition("\n")[0] or type(exc).__name__
        reason = words_without_secrets(reason, os.environ)
        logger.warning("no figures go to %s any more, the job goes on: %s", name, reason[:500])
        details = "".join(traceback.format_exception(exc))
        logger.debug("%s failed:\n%s", name, words_without_secrets(details, os.environ))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """What trackers take of figures: numbers, the infinite and the undefined included."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and (abs(value) < 1e300 or not math.isfinite(value))
    }
