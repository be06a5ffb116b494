"""Writes reports into folders."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edldist.files import replace_file
from edldist_launch.view.report.comparison import comparison_of
from edldist_launch.view.report.evidence import Evidence, read_evidence
from edldist_launch.view.report.one_run import report_of

__all__ = ["REPORT", "write_comparison", "write_report"]

REPORT = "report.html"


def write_report(folder: Path, page: Path | None = None, runs: bool = False) -> Evidence:
    """Write the report of a run.

    Args:
        folder: of the run.
        page: where it goes; None for ``report.html`` of the folder.
        runs: whether the job still goes on.

    Returns:
        What it is made of.

    Raises:
        ConfigError: no run was written there.
        OSError: it cannot be written; a former page stands.
    """
    evidence = read_evidence(folder, runs)
    replace_file(page or folder / REPORT, report_of(evidence, _made_by()).encode())
    return evidence


def write_comparison(those: Sequence[Evidence], page: Path) -> None:
    """Write several runs side by side.

    Raises:
        OSError: it cannot be written; a former page stands.
    """
    replace_file(page, comparison_of(those, _made_by()).encode())


def _made_by() -> str:
    from edldist import __version__

    return f"made by edldist {__version__} at {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
