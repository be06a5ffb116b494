"""The store of labels that a loop uses: what it was given, or else what its job says."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from edldist.environment import JobEnvironment, StoreEnvironment
from edldist.errors import ConfigError
from edldist.store.label_store import LabelStore
from edldist.student.inputs.ids import SampleIds
from edldist.student.service.kept.store_use import StoreUse

__all__ = ["Stored", "open_store"]


class Stored(NamedTuple):
    """A loop's store.

    Attributes:
        use: how it is used; None without one.
        own: the store, if it was opened for this loop, which has to close it.
    """

    use: StoreUse | None = None
    own: LabelStore | None = None

    @property
    def by_inputs(self) -> bool:
        """Whether there is a store, in which samples are known by what teachers see of them."""
        return self.use is not None and self.use.ids is None

    @classmethod
    def of(cls, store: Any, ids: Any, environment: JobEnvironment) -> Stored:
        """Check the arguments of a ``DistillLoader``, by the same names.

        Args:
            environment: what the job says.

        Raises:
            ConfigError: they cannot be.
            StoreError: the store cannot be opened.
        """
        named, job = SampleIds.of(ids), environment.store
        if store is None and job is not None:
            own = open_store(job)
            how = job.preprocessing, job.data, job.only, job.teachers
            return cls(StoreUse(own, named, *how), own)
        if store is None or store is False:
            if named is not None:
                raise ConfigError(
                    f"ids={ids!r:.100} without a store: give store=, or the job file's store section"
                )
            return cls()
        if isinstance(store, LabelStore):
            return cls(_like_the_jobs(store, named, environment))
        if not isinstance(store, (str, os.PathLike)):
            raise ConfigError(f"store={store!r:.100}: use a path, a LabelStore, False for none, or None")
        own = LabelStore(store)
        return cls(_like_the_jobs(own, named, environment), own)


def open_store(job: StoreEnvironment, evicts: bool = True) -> LabelStore:
    """The store that a job names.

    Args:
        evicts: see ``LabelStore``.

    Raises:
        StoreError: it cannot be opened.
    """
    bounds = {}
    if job.memory_mib is not None:
        bounds["memory_bytes"] = job.memory_mib << 20
    if job.disk_mib is not None:
        bounds["disk_bytes"] = job.disk_mib << 20
    return LabelStore(job.path, **bounds, read_only=job.read_only, evicts=evicts)


def _like_the_jobs(store: LabelStore, ids: SampleIds | None, environment: JobEnvironment) -> StoreUse:
    """Another store than the job's, under the same words for what was done to inputs, and for their data."""
    job, made_by = environment.store, environment.label_makers
    if job is None:
        return StoreUse(store, ids, made_by=made_by)
    return StoreUse(store, ids, job.preprocessing, job.data, made_by=made_by)
