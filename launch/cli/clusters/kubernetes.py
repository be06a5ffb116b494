"""``edldist submit k8s`` and ``edldist render k8s``."""

from __future__ import annotations

from pathlib import Path

import click

from edldist_launch.cli.options.option_types import Override
from edldist_launch.cli.options.options import labels_option, option

__all__ = ["render_k8s", "submit_k8s"]

_job = click.argument("job", type=click.Path(path_type=Path))
_overrides = option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job: a dotted key and a YAML value, as in kubernetes.namespace=research. Repeatable; "
    "the variable holds several, parted and quoted as in a shell.",
)

_extend = option(
    "--extend",
    is_flag=True,
    help="Go on from the last checkpoint in the job's output, though another teacher labelled for it.",
)


@click.command("k8s")
@_job
@_overrides
@labels_option
@_extend
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder by which status, scale, logs and stop find the job (default: out/NAME).",
)
@option("--dry-run", is_flag=True, help="Ask the cluster whether it would take the job, and make nothing.")
def submit_k8s(
    job: Path, overrides: tuple[str, ...], labels: bool, extend: bool, output: Path | None, dry_run: bool
) -> int:
    """Hand a JOB file to Kubernetes, with the cluster and the rights that kubectl has.

    Its objects are those of `edldist render k8s`. Either all of them are made, or none. The image has to hold
    what the current folder holds, in kubernetes.workdir.
    """
    from edldist_launch.job.resolve import spare_the_job_file
    from edldist_launch.job.submitting import submission_folder
    from edldist_launch.kubernetes.backend import KubernetesBackend
    from edldist_launch.kubernetes.exposed import exposed
    from edldist_launch.kubernetes.resolve import plan_in_image
    from edldist_launch.plan.labelling import loader
    from edldist_launch.view.console import output_option

    plan = plan_in_image(job, overrides, extend, loader(labels))
    folder = submission_folder(plan.name, output)
    spare_the_job_file(job, folder)
    for remark in exposed(plan):
        click.echo(f"warning: {remark}", err=True)
    backend = KubernetesBackend(folder)
    if dry_run:
        for name in backend.try_out(plan):
            print(name)
        return 0
    backend.start(plan)
    option = output_option(folder)
    print(f"job {plan.name} is handed over; {option} finds it: edldist status, logs, scale, stop")
    return 0


@click.command("k8s")
@_job
@_overrides
@labels_option
@_extend
def render_k8s(job: Path, overrides: tuple[str, ...], labels: bool, extend: bool) -> int:
    """Print the objects of a JOB file for Kubernetes, as kubectl apply -f - takes them.

    They are those of k8s/base and its components, filled in, without the Secrets, which submit makes: how
    to make them by hand stands at the head of what is printed.
    """
    from edldist_launch.contract.job_keys import JobKeys
    from edldist_launch.kubernetes.exposed import exposed
    from edldist_launch.kubernetes.kubectl import Kubectl
    from edldist_launch.kubernetes.render import dump, new_token, render
    from edldist_launch.kubernetes.resolve import plan_in_image
    from edldist_launch.kubernetes.shown import secrets_by_hand, without_secrets
    from edldist_launch.plan.labelling import loader

    plan = plan_in_image(job, overrides, extend, loader(labels))
    for remark in exposed(plan):
        click.echo(f"warning: {remark}", err=True)
    namespace = Kubectl.of(plan.job.kubernetes).namespace
    sealed = JobKeys.of(Path()).folder is not None
    secrets, others = without_secrets(render(plan, namespace, new_token(), sealed=sealed))
    print(f"{secrets_by_hand(secrets)}{dump(others)}", end="")
    return 0
