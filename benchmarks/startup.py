"""How soon the command line answers, and that control processes import no torch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence

from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave
from edldist_benchmarks.processes import EDLDIST, ROOT

__all__ = ["measure_startup"]

RUNS = 3
CONTROL = (
    "edldist.coordinator.server",
    "edldist.wire.query",
    "edldist_launch.cli",
    "edldist_launch.job.run",
    "edldist_launch.view.status",
    "edldist_launch.node.student",
)
SCRIPT = "import importlib, sys; importlib.import_module(sys.argv[1]); sys.exit('torch' in sys.modules)"


def measure_startup(settings: Settings) -> Result:
    """``edldist --help`` against an interpreter that does nothing."""
    runs = interleave(
        RUNS * settings.repeats,
        help=lambda: _wall_s([*EDLDIST, "--help"]),
        bare=lambda: _wall_s([sys.executable, "-c", "pass"]),
    )
    importing = [name for name in CONTROL if _imports_torch(name)]
    result = Result(
        [
            Figure.median_of(
                "edldist --help",
                "s",
                runs["help"],
                runs["bare"],
                "s bare Python",
                Budget(at_most=0.3, of="value"),
            ),
            Figure(
                f"of {len(CONTROL)} control modules, import torch",
                len(importing),
                "",
                budget=Budget(at_most=0, of="value"),
            ),
        ]
    )
    if importing:
        result.notes.append(f"torch is imported by {', '.join(importing)}")
    return result


def _wall_s(command: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def _imports_torch(module: str) -> bool:
    done = subprocess.run([sys.executable, "-c", SCRIPT, module], cwd=ROOT, capture_output=True, text=True)
    if done.stderr:
        raise RuntimeError(f"{module} cannot be imported: {done.stderr.strip()[-500:]}")
    return done.returncode == 1
