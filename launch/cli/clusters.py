"""``edldist submit`` and ``edldist render``: a job on a cluster's engine, which the next word names."""

from __future__ import annotations

import click

from edldist_launch.cli.kubernetes import render_k8s

__all__ = ["render"]


@click.group()
def render() -> None:
    """Print exactly what submit would hand to a cluster."""


render.add_command(render_k8s)
