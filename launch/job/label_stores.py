"""Stores of labels from outside: what is in them, whether it is sound, and several put together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edldist.config import JobConfig
from edldist.errors import ConfigError
from edldist.store.audit import Audit
from edldist.store.label_store import LabelStore
from edldist.store.recipe import Recipe
from edldist_launch.plan.labelling import load_label_job
from edldist_launch.process.exits import EXIT_FAILED
from edldist_launch.process.importing import make_importable
from edldist_launch.view.console import PlainConsole

UNBOUNDED = 1 << 60
"""Bytes of the disk: what is merged is not to drive out what is there."""

__all__ = ["labels_of", "merge_stores", "verify_store"]


def labels_of(job: JobConfig) -> list[dict[str, Any]]:
    """What the store of a job says that it holds: of each recipe its digest, model, samples, files and bytes.

    Raises:
        StoreError, OSError: it cannot be read.
    """
    assert job.store is not None
    with LabelStore(job.store.path, read_only=True) as store:
        return [
            {
                "recipe": each.recipe.digest,
                "model": each.recipe.fingerprint.model,
                "samples": each.samples,
                "files": each.files,
                "bytes": each.bytes,
            }
            for each in store.contents()
        ]


def verify_store(
    path: str, job_path: Path | None, overrides: Sequence[str], import_from: str | None, quiet: bool
) -> int:
    """Check every file of a store, and with a job whether its data set is there, each sample once.

    Args:
        path: folder or URL of the store.
        job_path: a job file with a section ``label``, or None.
        overrides: of that, see ``load_job``.
        import_from: where its data set may be imported from, beside the current folder and the job file's.
        quiet: print what is wrong alone.

    Returns:
        0: all is sound, and there; 1: it is not.

    Raises:
        ConfigError: there is no store, or the job file is wrong.
        StoreError, OSError: the store cannot be read, or does not tell which of its labels the job means.
    """
    _check_there(path)
    console = PlainConsole(quiet=quiet)
    job = None if job_path is None else load_label_job(job_path, overrides, path)
    with LabelStore(path, read_only=True) as store:
        recipes = {recipe.digest: recipe for recipe in store.recipes()}
        audits = store.verify()
        for audit in audits:
            console.print(_told(audit, recipes[audit.recipe]), soft_wrap=True)
        wrong = [f"damaged: {why}" for audit in audits for why in audit.damaged.values()]
        if job is not None and job_path is not None:
            beside = job_path.absolute().parent if import_from is None else Path(import_from).absolute()
            make_importable(os.getcwd(), str(beside))
            from edldist.labeller.census import take_census

            for census in take_census(job, store):
                console.print(f"{census.teacher}: {census.told}", soft_wrap=True)
                wrong += census.wrong
    for words in wrong:
        PlainConsole(stderr=True).print(f"error: {words}", soft_wrap=True)
    return EXIT_FAILED if wrong else 0


def merge_stores(target: str, sources: Sequence[str], quiet: bool) -> int:
    """Take the labels of stores into one, where what is there stays as it is; 0.

    Raises:
        ConfigError: a source is not there, is the target, or holds labels made by something else.
        StoreError: the target does not take them.
        OSError: a source cannot be read.
    """
    for source in sources:
        _check_there(source)
        if _place(source) == _place(target):
            raise ConfigError(f"--merge {target} {source}: a store is not merged into itself")
    console = PlainConsole(quiet=quiet)
    with LabelStore(target, disk_bytes=UNBOUNDED) as store:
        _refuse_strangers(target, store, sources)
        for source in sources:
            console.print(f"{source}: {store.merge(source):,} samples came", soft_wrap=True)
        for each in store.contents():
            console.print(
                f"{target}: {each.samples:,} samples of {each.recipe.fingerprint.model} in {each.files} "
                f"files, {each.bytes:,} bytes",
                soft_wrap=True,
            )
    return 0


def _refuse_strangers(target: str, store: LabelStore, sources: Sequence[str]) -> None:
    """Refuse labels of other teachers, or of other data, than those that are there, or that come first.

    Raises:
        ConfigError: there are some; says how they differ. Nothing was written.
    """
    there, where = store.recipes(), target
    for source in sources:
        with LabelStore(source, read_only=True) as opened:
            recipes = opened.recipes()
        there, where = (there, where) if there else (recipes, source)
        digests = {recipe.digest for recipe in there}
        for recipe in recipes:
            if recipe.digest not in digests:
                least = min((recipe.differences(each) for each in there), key=len)
                raise ConfigError(
                    f"--merge {target}: {source} holds labels that are none of those in {where}: "
                    f"{'; '.join(least)}. Nothing was merged: give each teacher's labels a store of their own"
                )


def _check_there(path: str) -> None:
    """Refuse a folder that is none of labels.

    Raises:
        ConfigError: it is not.
    """
    if "://" not in path and not (Path(path) / "recipes").is_dir():
        raise ConfigError(f"{path} is no store of labels: it has no folder recipes/. edldist label makes one")


def _place(path: str) -> str:
    return path.rstrip("/") if "://" in path else os.path.realpath(path)


def _told(audit: Audit, recipe: Recipe) -> str:
    """What was found of one recipe, in a line."""
    made_by = recipe.fingerprint
    of = f"version {made_by.version}" if made_by.version else f"weights {made_by.weights[:12]}"
    damaged = f", {len(audit.damaged)} damaged" if audit.damaged else ", all sound"
    return (
        f"{audit.recipe[:12]}: {audit.samples:,} samples of {made_by.model} ({of}, {made_by.codec}, "
        f"{recipe.data or 'by digests of inputs'}) in {audit.files} files of {audit.bytes:,} bytes{damaged}"
    )
