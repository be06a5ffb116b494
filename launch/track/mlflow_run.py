"""MLflow: a run at the server, or in the store, that ``MLFLOW_TRACKING_URI`` names."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any

from edldist_launch.track.tracker import Figures, Run, TrackerError, not_importable

__all__ = ["MlflowRun"]

EXPERIMENT = "edldist"
_NAMES = re.compile(r"[^\w\-. /:]")
_DATABASES = ("sqlite", "mysql", "postgresql", "mssql")
_MOST_PARAMS, _LONGEST = 100, 500
_STATUS = {"completed": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MlflowRun:
    """One run; its own variables (``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``, ...) say where.

    Uses a client of its own: what a process says to ``mlflow`` itself stays untouched.
    """

    def __init__(self, run: Run) -> None:
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient, get_tracking_uri
        except ImportError as exc:
            raise not_importable("mlflow", exc) from exc
        kind = get_tracking_uri().partition(":")[0]
        if kind.startswith(_DATABASES) and importlib.util.find_spec("sqlalchemy") is None:
            raise TrackerError(
                f"mlflow-skinny, which is installed, keeps no runs in a database ({kind}, as mlflow does "
                "where nobody says otherwise): set MLFLOW_TRACKING_URI to a server (http://HOST:PORT), or "
                "pip install mlflow"
            )
        self._metric = Metric
        self._client = MlflowClient()
        self.id = run.known.get("mlflow") or os.environ.get("MLFLOW_RUN_ID") or ""
        if self.id:
            self._client.update_run(self.id, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment is not None else self._client.create_experiment(name)
        self.id = self._client.create_run(number, run_name=run.job).info.run_id
        params = [Param(key, value[:_LONGEST]) for key, value in _flat(run.settings)]
        self._client.log_batch(self.id, params=params[:_MOST_PARAMS])

    def log(self, figures: Figures) -> None:
        at = round(1000 * figures.t)
        values = figures.values.items()
        metrics = [self._metric(_NAMES.sub("_", name), value, at, figures.step) for name, value in values]
        self._client.log_batch(self.id, metrics=metrics)

    def end(self, status: str, result: Mapping[str, float]) -> None:
        self._client.set_terminated(self.id, _STATUS[status])


def _flat(value: Any, name: str = "") -> list[tuple[str, str]]:
    """A tree of settings as names with dots, and texts."""
    if isinstance(value, Mapping):
        return [pair for key in value for pair in _flat(value[key], f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        return [pair for at, each in enumerate(value) for pair in _flat(each, f"{name}.{at}")]
    return [(name, str(value))]
