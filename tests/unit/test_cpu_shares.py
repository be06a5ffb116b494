"""Processes that compute on one machine share its CPUs."""

from __future__ import annotations

from edldist.cpus import usable_cpus
from edldist_launch.machine.cpu_shares import limit_threads


def test_cores_are_shared_out_unless_the_user_chose() -> None:
    environment: dict[str, str] = {}
    assert limit_threads(environment, 1) == usable_cpus()
    chosen = {"OMP_NUM_THREADS": "7"}
    assert limit_threads(chosen, 1) is None
    assert chosen == {"OMP_NUM_THREADS": "7"}
    empty = {"OMP_NUM_THREADS": ""}
    assert limit_threads(empty, 1) == usable_cpus()
    assert empty == {"OMP_NUM_THREADS": str(usable_cpus())}
    crowded: dict[str, str] = {}
    assert limit_threads(crowded, 10_000) == 1
    assert crowded == {"OMP_NUM_THREADS": "1"}
