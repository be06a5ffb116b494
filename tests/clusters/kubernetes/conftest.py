"""The cluster that these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters.kubernetes.cluster import Cluster, shared_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with shared_cluster().chosen() as made:
        yield made
