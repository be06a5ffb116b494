"""The rows that there are, and how each is run. Imports no torch: a row's module is loaded when it runs."""

from __future__ import annotations

import importlib
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edldist_benchmarks.figures import NotMeasuredError, Result, Settings

__all__ = ["ROWS", "Outcome", "Row", "UnknownRowError", "select"]


class UnknownRowError(Exception):
    """No row has such a name."""


@dataclass(frozen=True)
class Row:
    """One row: ``function`` of ``benchmarks.<module>`` takes ``Settings`` and returns a ``Result``.

    ``budgeted`` rows have a budget in the design; the others stand in a table of their own.
    """

    name: str
    module: str
    function: str
    title: str
    budgeted: bool = True

    def run(self, settings: Settings) -> Outcome:
        """Measure; an error becomes part of the outcome, so that the other rows are not lost."""
        began = time.monotonic()
        try:
            measure = getattr(importlib.import_module(f"edldist_benchmarks.{self.module}"), self.function)
            result: Result = measure(settings)
            return Outcome(self, "measured", time.monotonic() - began, result)
        except NotMeasuredError as exc:
            return Outcome(self, "skipped", time.monotonic() - began, reason=str(exc))
        except Exception as exc:
            reason = f"{type(exc).__name__}: {exc}"
            return Outcome(
                self, "failed", time.monotonic() - began, reason=reason, trace=traceback.format_exc()
            )


@dataclass(frozen=True)
class Outcome:
    """What became of a row: ``measured``, ``skipped`` (it cannot be measured here) or ``failed``."""

    row: Row
    status: str
    took_s: float
    result: Result = field(default_factory=Result)
    reason: str = ""
    trace: str = ""

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.row.name,
            "title": self.row.title,
            "budgeted": self.row.budgeted,
            "status": self.status,
            "reason": self.reason,
            "took_s": round(self.took_s, 2),
            "figures": [figure.document() for figure in self.result.figures],
            "curves": [
                {
                    "name": curve.name,
                    "title": curve.title,
                    "x": curve.x_label,
                    "y": curve.y_label,
                    "ideal": curve.ideal_name,
                    "points": [{"x": p.x, "value": p.value, "ideal": p.ideal} for p in curve.points],
                }
                for curve in self.result.curves
            ],
            "notes": self.result.notes,
        }


ROWS = (
    Row("large-tcp", "label_path", "large_tcp", "label path over TCP, large images"),
    Row("large-shared", "label_path", "large_shared", "the same through shared memory on one host"),
    Row("data-loader", "data_loader", "measure_collating", "images that a data loader's worker stacks"),
    Row("small", "label_path", "small", "label path, 64-byte samples"),
    Row("tracing", "tracing", "measure_tracing", "the same while its tasks are traced"),
    Row("tokens", "label_path", "tokens", "label path, labels of tokens"),
    Row("store", "store", "measure_store", "rates and bounds of a store of labels", budgeted=False),
    Row("kept", "kept", "measure", "labels that are kept, against live ones"),
    Row("loop", "loop", "simulated", "training loop, simulated device step of 20 ms"),
    Row("training", "training", "measure_training", "real training on the CPU, no-op teacher"),
    Row("workers", "fleets", "many", "32 simulated workers"),
    Row("mixed", "fleets", "mixed", "simulated workers of 10 ms and of 40 ms"),
    Row("shares", "shares", "measure_shares", "three jobs of weights 2:1:1 that ask twice as much"),
    Row("relief", "relief", "measure_relief", "a smaller codec on an overloaded fleet", budgeted=False),
    Row("killed", "killed", "measure_killed", "one of four workers killed"),
    Row("restart", "restarts", "measure_restarts", "a student node killed, and one joining"),
    Row("resize", "resize", "measure_resize", "a rank killed, frozen and joining, in process"),
    Row("coordinator", "crowds", "measure_crowds", "coordinator with 1,000 members at 1 Hz"),
    Row("startup", "startup", "measure_startup", "start of edldist --help, and what is imported"),
    Row("metrics", "metrics_cost", "measure_metrics", "what metrics cost, 64-byte samples"),
    Row("autoscale", "autoscale", "measure_autoscale", "the autoscaler under the laws of engines"),
    Row("losses", "divergences", "measure_divergences", "losses of a language model", budgeted=False),
    Row("sealing", "sealing", "measure_sealing", "label path over TCP, with keys", budgeted=False),
    Row("cost", "cost", "measure_cost", "bytes, system calls, CPU and memory", budgeted=False),
    Row("codecs", "codecs", "measure_codecs", "what codecs cost, and what they lose", budgeted=False),
    Row("answers", "answers", "measure_answers", "answers of HTTP engines", budgeted=False),
    Row("held-out", "held_out", "measure_held_out", "what students learn from each codec", budgeted=False),
    Row("worker-curve", "fleets", "worker_curve", "1 to 64 simulated workers", budgeted=False),
    Row("rank-curve", "ranks", "rank_curve", "1 to 8 ranks that share a fleet", budgeted=False),
    Row("threads", "threads", "measure_threads", "CPU threads of teacher workers", budgeted=False),
    Row("gpu", "gpu", "measure_gpu", "a real pair of models on a GPU", budgeted=False),
)


def select(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of the catalogue; all rows for no name.

    Raises:
        UnknownRowError: names the wrong ones and all that there are.
    """
    known = {row.name for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UnknownRowError(
            f"no such row: {', '.join(map(repr, unknown))}; there are {', '.join(row.name for row in ROWS)}"
        )
    return [row for row in ROWS if not names or row.name in names]
