"""The cluster that a file's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters.slurm.cluster import Cluster, require_slurm, slurm_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    require_slurm()
    with slurm_cluster() as made:
        yield made
