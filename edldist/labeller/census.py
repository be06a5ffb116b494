"""Whether each sample of a data set has labels in a store, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from edldist.config import JobConfig, LabelConfig
from edldist.config.label import INDEX
from edldist.environment import LabelMaker
from edldist.labeller.data_set import NumberedSamples, open_data
from edldist.labeller.naming import batch_keys
from edldist.reference import is_factory
from edldist.store.label_store import LabelStore
from edldist.store.sample_key import KEY_BYTES, Keys, keys_of_ids
from edldist.student.service.kept.store_use import StoreUse

__all__ = ["Census", "take_census"]

SHOWN = 5
_WHOLE = np.dtype(f"V{KEY_BYTES}")
"""A key as one value."""


class Census(NamedTuple):
    """What a store has of a data set.

    Attributes:
        teacher: whose labels.
        told: how many samples are there, in words.
        wrong: what is missing, and what is there more than once, in words; empty where all is well.
    """

    teacher: str
    told: str
    wrong: list[str]


def take_census(job: JobConfig, store: LabelStore) -> Iterator[Census]:
    """Look for every sample of a job's data set; where they are not known by their numbers, all are read.

    Samples whose inputs are the same are one sample, unless they have ids.

    Args:
        job: with a section ``label`` and a store, see ``edldist_launch.plan.labelling``.
        store: the one that is looked at.

    Raises:
        ConfigError, ModelError: the data set cannot be opened.
        StoreError: the store does not tell which of its labels are a teacher's.
    """
    settings, section = job.label, job.store
    assert settings is not None and section is not None
    made_by = {
        teacher.name: LabelMaker(
            *(teacher.model if is_factory(teacher.model) else "", teacher.codec),
            *(teacher.version, teacher.label_settings),
        )
        for teacher in job.teachers
    }
    use = StoreUse(store, None, section.preprocessing, section.data, made_by=made_by)
    keys = _keys(settings, section.data)
    samples = np.unique(keys)
    for teacher in job.teachers:
        recipe = use.recipe_of(teacher.name, None, "" if settings.ids is None else section.data)
        (listed,) = [each.samples for each in store.contents() if each.recipe.digest == recipe.digest]
        there = [kept.keys.view(_WHOLE).ravel() for kept in store.shelf(recipe).kept()]
        found = np.concatenate(there) if there else samples[:0]
        missing = np.flatnonzero(~np.isin(keys, found))
        wrong = []
        if len(missing):
            which = ", ".join(map(str, missing[:SHOWN].tolist())) + (", ..." if len(missing) > SHOWN else "")
            wrong.append(f"{teacher.name}: {len(missing):,} samples have no labels, the first are {which}")
        if listed != len(found):
            wrong.append(f"{teacher.name}: {listed - len(found):,} samples are there more than once")
        had = len(samples) - len(np.unique(keys[missing]))
        told = f"{had:,} of {len(samples):,} samples of {settings.data} are there"
        if more := len(found) - had:
            told += f", and {more:,} of other data"
        yield Census(teacher.name, told, wrong)


def _keys(settings: LabelConfig, data_name: str) -> np.ndarray:
    """The keys of all samples, in the order of the data set, each as one value."""
    data = open_data(settings, 0, 1)
    if isinstance(data, NumberedSamples) and settings.ids == INDEX:
        return keys_of_ids(data_name, range(len(data))).view(_WHOLE).ravel()
    batches = data.batches(np.arange(len(data))) if isinstance(data, NumberedSamples) else data
    keys_of = batch_keys(settings, data_name)
    found: list[Keys] = [keys_of(batch) for batch in batches]
    whole = np.concatenate(found) if found else np.zeros((0, KEY_BYTES), np.uint8)
    return whole.view(_WHOLE).ravel()
