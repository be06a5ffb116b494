"""``edldist label``: a data set labelled ahead of time, and a look at the stores that hold its labels."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from edldist_launch.cli.options.begin import begin
from edldist_launch.cli.options.option_types import Override
from edldist_launch.cli.options.options import import_from_option, option
from edldist_launch.cli.options.verbosity import chosen_level

__all__ = ["label"]


@click.command()
@click.argument("names", type=click.Path(path_type=Path), nargs=-1, metavar="[JOB | SOURCE...]")
@option(
    "--store",
    metavar="STORE",
    help="Folder (or URL) of the store that labels go to; wins over store.path of the job file.",
)
@option(
    "--set",
    "overrides",
    type=Override("EDLDIST_SET"),
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the job: a dotted key and a YAML value, as in label.nproc_per_node=2. Repeatable; the "
    "variable holds several, parted and quoted as in a shell.",
)
@option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the record of the run (default: out/NAME-labels, or the next free one).",
)
@option(
    "--fresh",
    is_flag=True,
    help="Begin a new record: what an earlier run recorded in the folder moves into earlier-N there. "
    "Labels in the store stay, and are not asked for again.",
)
@option(
    "--extend",
    is_flag=True,
    help="Go on in the folder, though the run there is finished or the job has changed.",
)
@option(
    "--dry-run", is_flag=True, help="Print the resolved job, and start nothing; factories are looked for."
)
@option(
    "--detach",
    is_flag=True,
    help="Run it in the background, and return once it has begun: see edldist status, logs, scale and stop.",
)
@option(
    "--verify",
    metavar="STORE",
    help="Start nothing: check every shard of a store against its checksum, and with a JOB, whether each "
    "sample of its data set is there exactly once.",
)
@option(
    "--merge",
    metavar="TARGET",
    help="Start nothing: take the labels of the SOURCE stores into the store TARGET.",
)
@import_from_option
def label(
    names: tuple[Path, ...],
    store: str | None,
    overrides: tuple[str, ...],
    output: Path | None,
    fresh: bool,
    extend: bool,
    dry_run: bool,
    detach: bool,
    verify: str | None,
    merge: str | None,
    import_from: str | None,
) -> int:
    """Label the data set of a JOB file ahead of time.

    Starts a coordinator and the job's teacher workers, and in the student's place a labeller, which reads the
    data set that the section `label` names and writes what teachers say into shards of a store. What the
    store holds already is not asked for again: the same command goes on after whatever ended it. A job then
    trains from the store (see docs/store.md).

    --verify STORE [JOB] looks a store through; --merge TARGET SOURCE... puts stores of several clusters
    together.
    """
    if verify is not None and merge is not None:
        raise click.UsageError("--verify looks at a store and --merge changes one: give one of them.")
    quiet = chosen_level(click.get_current_context(), "") == "warning"
    if merge is not None:
        if not names:
            raise click.UsageError("--merge TARGET SOURCE...: name the stores whose labels it shall take.")
        from edldist_launch.job.label_stores import merge_stores

        return merge_stores(merge, [str(name) for name in names], quiet)
    if len(names) > 1:
        raise click.UsageError(f"one JOB file, and not {len(names)}: {', '.join(map(str, names))}.")
    if verify is not None:
        from edldist_launch.job.label_stores import verify_store

        return verify_store(verify, names[0] if names else None, overrides, import_from, quiet)
    if not names:
        raise click.UsageError("name the JOB file whose data set is to be labelled.")
    if fresh and extend:
        raise click.UsageError("--fresh begins anew and --extend goes on: give one of them.")
    (job,) = names
    from edldist_launch.plan.labelling import load_label_job
    from edldist_launch.record.earlier import Beginning

    load = functools.partial(load_label_job, store=store)
    beginning: Beginning = "fresh" if fresh else "extend" if extend else "resume"
    if dry_run:
        from edldist_launch.job.dry_run import describe_run

        print(describe_run(job, overrides, output, beginning, load), end="")
        return 0
    if detach:
        from edldist_launch.job.detached import start_detached

        return start_detached(job, overrides, output, beginning, load)
    from edldist_launch.job.run import run_job

    begin("label")
    beside = Path(import_from) if import_from else None
    return run_job(job, overrides, output, beginning, beside, quiet, load)
