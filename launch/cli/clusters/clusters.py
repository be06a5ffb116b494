"""``edldist submit`` and ``edldist render``: a job on a cluster, whose engine the next word names."""

from __future__ import annotations

import click

from edldist_launch.cli.clusters.kubernetes import render_k8s, submit_k8s
from edldist_launch.cli.clusters.slurm import render_slurm, submit_slurm

__all__ = ["render", "submit"]


@click.group()
def submit() -> None:
    """Hand a job to a cluster."""


@click.group()
def render() -> None:
    """Print exactly what submit would hand to a cluster."""


submit.add_command(submit_k8s)
submit.add_command(submit_slurm)
render.add_command(render_k8s)
render.add_command(render_slurm)
