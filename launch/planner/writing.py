"""What a plan leaves on the disk."""

from __future__ import annotations

import json
from pathlib import Path

from edldist.errors import LaunchError
from edldist.files import replace_file
from edldist.yamltext import dump_yaml
from edldist_launch.planner.picture import draw_plan
from edldist_launch.planner.planning import Plan
from edldist_launch.planner.report import document, fragment, in_words

__all__ = ["write_fragment", "write_plan"]


def write_fragment(plan: Plan, path: Path) -> None:
    """Write a plan as keys of a job file, for ``--set @FILE``.

    Raises:
        LaunchError: the file cannot be written.
    """
    said = "".join(f"# {line}\n" for line in in_words(plan)[:5])
    try:
        replace_file(path, (said + dump_yaml(fragment(plan))).encode())
    except OSError as exc:
        raise LaunchError(f"cannot write {path}: {exc.strerror or exc}") from exc


def write_plan(plan: Plan, folder: Path) -> list[Path]:
    """Write ``plan.json``, and ``plan.png`` where matplotlib is installed, to a folder; what was written.

    Raises:
        LaunchError: it cannot be written.
    """
    figures, picture = folder / "plan.json", folder / "plan.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(figures, f"{json.dumps(document(plan), indent=2)}\n".encode())
        drawn = draw_plan(plan, picture, f"a plan by {', '.join(str(run.folder) for run in plan.runs)}")
    except OSError as exc:
        raise LaunchError(f"cannot write to {folder}: {exc.strerror or exc}") from exc
    return [figures, picture] if drawn else [figures]
