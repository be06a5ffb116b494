"""TensorBoard: event files in the job's folder, written by its own writer, without TensorFlow or torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edldist_launch.track.tracker import Figures, Run, not_importable

__all__ = ["TensorBoardFiles"]


class TensorBoardFiles:
    """Writes scalars to a folder.

    Args:
        place: the folder; None for ``tensorboard`` in the run's own.
    """

    id = ""

    def __init__(self, run: Run, place: str | None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as exc:
            raise not_importable("tensorboard", exc) from exc
        self._events, self._summaries = event_pb2, summary_pb2
        folder = run.folder / "tensorboard" if place is None else Path(place)
        self._writer = EventFileWriter(str(folder), flush_secs=5)

    def log(self, figures: Figures) -> None:
        value = self._summaries.Summary.Value
        scalars = [value(tag=name, simple_value=number) for name, number in figures.values.items()]
        summary = self._summaries.Summary(value=scalars)
        event = self._events.Event(wall_time=figures.t, step=figures.step, summary=summary)
        self._writer.add_event(event)

    def end(self, status: str, result: Mapping[str, float]) -> None:
        self._writer.close()
