"""``edldist init``: a small job that runs at once."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["init"]


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
def init(name: Path) -> int:
    """Make a folder NAME with a small job that runs at once: a job file, models, a training script, a README.

    A teacher and a student on handwritten digits, to be replaced by your own, one after the other.
    """
    import importlib.util

    from edldist_launch.job.starter import make_starter

    folder = make_starter(name)
    print(
        f"made {folder}: its README.md says what is in it. It runs with\n  edldist run {folder / 'job.yaml'}"
    )
    if importlib.util.find_spec("sklearn") is None:
        print("first: pip install scikit-learn, which has its data")
    return 0
