"""``edldist schema``: what editors complete and check a job file by."""

from __future__ import annotations

import click

__all__ = ["schema"]


@click.command()
def schema() -> None:
    """Print the JSON schema of a job file, by which editors complete and check it.

    Write it beside the job file (edldist schema > edldist.schema.json), and let the job file begin with
    the line "# yaml-language-server: $schema=edldist.schema.json".
    """
    import json

    from edldist.config import job_schema

    print(json.dumps(job_schema(), indent=2))
