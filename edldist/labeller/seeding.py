"""Refuses a data set whose samples look different whenever they are read, before any of it is labelled."""

from __future__ import annotations

import logging

import numpy as np

from edldist.config import LabelConfig
from edldist.errors import StoreError
from edldist.labeller.data_set import Batch, NumberedSamples, Stream
from edldist.labeller.naming import batch_keys

__all__ = ["check_seeding"]

logger = logging.getLogger(__name__)


def check_seeding(data: NumberedSamples | Stream, settings: LabelConfig) -> None:
    """Read some samples several times over, and see whether teachers would see the same each time.

    A stream is read once, from its beginning: of that nobody can tell.

    Raises:
        StoreError: they would not; says which sample, and what to do.
    """
    if isinstance(data, Stream):
        return
    # By their inputs, whatever samples are called: a name stays the same.
    keys_of = batch_keys(settings.model_copy(update={"ids": None}), "")
    try:
        again = data.reread()
        looks = [] if again is None else [keys_of(Batch(content, None)) for content in again.batches]
    except Exception as exc:  # the walk itself will say what is wrong with the data
        logger.info("samples could not be read again, to see whether they look the same: %r", exc)
        return
    for other in looks[1:]:
        differs = (looks[0] != other).any(axis=1) if looks[0].shape == other.shape else np.ones(1, np.bool_)
        if again is not None and differs.any():
            raise StoreError(
                f"{again.named(int(differs.argmax()), len(other))} does not look the same when it is read "
                "again: an augmentation that is not seeded, or an input that is drawn. No training would "
                "find the labels of what is drawn now. Seed it by the sample (edldist.augmentation_seed("
                "seed, index, variant), docs/store.md), or label the samples as they are"
            )
