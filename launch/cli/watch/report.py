"""``edldist report``: what a run, or several, came to, as a page."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edldist_launch.cli.options.options import option

__all__ = ["report"]


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    metavar="DIR...",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@option(
    "--to",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the page goes (default: report.html in DIR, or comparison.html here for several).",
)
def report(folders: tuple[Path, ...], to: Path | None) -> int:
    """Write the report of the run in DIR as one HTML page, or compare several runs side by side.

    A run writes its report itself when it ends; this makes it anew, also of a run that was killed or goes on,
    and of a folder in which files are missing or damaged: the page says so. A comparison has the figures, the
    settings that differ, and all curves over each other.
    """
    from edldist.errors import LaunchError
    from edldist_launch.record.folder import is_held
    from edldist_launch.view.console import near
    from edldist_launch.view.report.evidence import read_evidence
    from edldist_launch.view.report.writing import REPORT, write_comparison, write_report

    page = to or (folders[0] / REPORT if len(folders) == 1 else Path("comparison.html"))
    try:
        if len(folders) == 1:
            those = [write_report(folders[0], page, is_held(folders[0]))]
        else:
            those = [read_evidence(folder, is_held(folder)) for folder in dict.fromkeys(folders)]
            write_comparison(those, page)
    except OSError as exc:
        raise LaunchError(f"cannot write {page}: {exc.strerror or exc}") from exc
    for evidence in those:
        if evidence.runs:
            print(f"the job of {near(evidence.folder)} still runs: the page ends here", file=sys.stderr)
        for words in evidence.damage:
            print(f"{near(evidence.folder)}: {words}", file=sys.stderr)
    print(near(page.absolute()))
    return 0
