"""One rank that labels ahead: what the job says is opened, and walked through."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edldist.config import LabelConfig
from edldist.config.label import INDEX
from edldist.environment import StoreEnvironment
from edldist.errors import ConfigError
from edldist.labeller import VARIABLE
from edldist.labeller.data_set import open_data
from edldist.labeller.naming import batch_keys, ids_of, inputs_of
from edldist.labeller.seeding import check_seeding
from edldist.labeller.walk import Reader, Walk
from edldist.lifecycle import exit_hooks
from edldist.ranks.placement import placement
from edldist.store.sample_key import Keys, keys_of_ids
from edldist.student.loader import DistillLoader
from edldist.student.loop.stored import open_store

__all__ = ["main"]


def main(environ: Mapping[str, str] = os.environ) -> None:
    """Label this rank's part of the job's data set, or as much of it as there is time for.

    Args:
        environ: holds the job's variables.

    Raises:
        EdlDistError: something is wrong with the section, the data set, a sample or the store.
    """
    exit_hooks.install()  # an error that another start would meet again ends the job
    settings, store = _settings(environ)
    here, teachers = placement(environ), tuple(store.teachers)
    part = here.rank, here.world_size
    data = open_data(settings, *part)
    check_seeding(data, settings)
    reader = Reader()
    with (
        # Ranks would drive out each other's labels, and nobody would know.
        open_store(store, evicts=False) as kept,
        DistillLoader(
            reader,
            inputs=inputs_of(settings),
            teacher=teachers[0] if len(teachers) == 1 else teachers,
            store=kept,
            ids=ids_of(settings),
            checkpointed=False,
        ) as loader,
    ):
        keys = _keys_of(store.data) if settings.ids == INDEX else None
        of_batches = batch_keys(settings, store.data)
        Walk(data, loader, reader, len(teachers), settings, keys, of_batches, part).run()


def _settings(environ: Mapping[str, str]) -> tuple[LabelConfig, StoreEnvironment]:
    """What the job file says of the data set, and of the store."""
    store = StoreEnvironment.read(environ)
    text = environ.get(VARIABLE)
    if text is None or store is None:
        raise ConfigError(f"{VARIABLE} or EDLDIST_STORE is not set: edldist label JOB starts this script")
    try:
        return LabelConfig.model_validate_json(text), store
    except ValidationError as exc:
        raise ConfigError(f"{VARIABLE}: {exc}") from exc


def _keys_of(data: str) -> Callable[[NDArray[np.int64]], Keys]:
    return lambda numbers: keys_of_ids(data, numbers.tolist())
