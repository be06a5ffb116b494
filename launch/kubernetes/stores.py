"""Where a job's store of labels lies, as pods see it. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from edldist.config import KubernetesConfig, StoreConfig
from edldist.errors import ConfigError
from edldist_launch.kubernetes.names import CLAIM

__all__ = ["store_in_pods"]


def store_in_pods(store: StoreConfig, settings: KubernetesConfig) -> StoreConfig:
    """The store as the student's pods find it.

    A relative path leads into the claim for output, beside the folders of the jobs that share it: so the job
    that labels and those that train find one store. A whole path is that of the pods, and a URL stays.

    Raises:
        ConfigError: the path leads out of the claim, or labels are to be kept where pods cannot write.
    """
    if store.is_url:
        return store
    shared = settings.claim is not None or settings.object_store is None
    if os.path.isabs(store.path):
        if not store.read_only and not any(_holds(place, store.path) for place in _written(settings, shared)):
            raise ConfigError(
                f"store.path: pods cannot write to {store.path}. A relative path is a folder in the claim "
                "for output; a whole one has to lie in a volume (kubernetes.volumes) with read_only: false, "
                "or the store is read_only: true"
            )
        return store
    if not shared:
        raise ConfigError(
            f"store.path: {store.path}: beside kubernetes.object_store pods share no folder: give a URL, "
            "as in s3://bucket/labels, or kubernetes.claim"
        )
    whole = os.path.normpath(f"{CLAIM}/{store.path}")
    if whole == CLAIM or not _holds(CLAIM, whole):
        raise ConfigError(
            f"store.path: {store.path} is no folder in the claim for output, which pods see in {CLAIM}: "
            "write it as in `labels`"
        )
    return store.model_copy(update={"path": whole})


def _written(settings: KubernetesConfig, shared: bool) -> Iterator[str]:
    """The folders to which the student's pods write, and which are there after them."""
    if shared:
        yield CLAIM
    for volume in settings.of("student", "student").volumes or ():
        if not volume.read_only:
            yield volume.path


def _holds(folder: str, path: str) -> bool:
    return PurePosixPath(os.path.normpath(path)).is_relative_to(os.path.normpath(folder))
