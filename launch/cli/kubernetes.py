"""``edldist submit k8s`` and ``edldist render k8s``."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.option_types import Override
from edldist_launch.cli.options import option

__all__ = ["render_k8s"]

_overrides = option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job: a dotted key and a YAML value, as in kubernetes.namespace=research. Repeatable; "
    "the variable holds several, parted and quoted as in a shell.",
)


@click.command("k8s")
@click.argument("job", type=click.Path(path_type=Path))
@_overrides
def render_k8s(job: Path, overrides: tuple[str, ...]) -> int:
    """Print the objects of a JOB file for Kubernetes, as kubectl apply -f - takes them.

    They are those of k8s/base and its components, filled in. A token is made up each time.
    """
    from edldist_launch.kubernetes.kubectl import Kubectl
    from edldist_launch.kubernetes.render import dump, new_token, render
    from edldist_launch.kubernetes.resolve import plan_in_image

    plan = plan_in_image(job, overrides)
    print(dump(render(plan, Kubectl.of(plan.job.kubernetes).namespace, new_token())), end="")
    return 0
