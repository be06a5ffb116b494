"""What shared memory takes of a process is bounded, however many peers and pollers it has."""

from __future__ import annotations

import resource
import threading
from pathlib import Path

import pytest

from edldist.errors import SharedMemoryError
from edldist.wire.shm import allowance
from edldist.wire.shm.allowance import Allowance, memory_bytes, of_process
from edldist.wire.shm.sharing import Sharing
from edldist.wire.shm.slabs import SlabPool

MIB = 1 << 20


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    of_process.cache_clear()
    yield
    of_process.cache_clear()


def test_the_slabs_of_all_readers_share_one_bound() -> None:
    shared = Allowance(100, 10 * MIB)
    pools = [SlabPool(shared) for _ in range(5)]
    frames = [bytes(3 * MIB)]
    assert all(pool.put(frames) for pool in pools[:3])
    for pool in pools[3:]:
        with pytest.raises(SharedMemoryError, match="take up 9 of 10 MiB.*3 MiB more do not fit"):
            pool.put(frames)
    assert shared.slab_bytes == MIB and shared.descriptors == 94
    pools[0].close()
    assert pools[3].put(frames) is not None, "what one reader's pool had is there for another"
    for pool in pools:
        pool.close()
    assert shared.slab_bytes == 10 * MIB and shared.descriptors == 100


def test_a_pool_gives_up_its_free_small_slabs_for_a_large_one() -> None:
    shared = Allowance(100, 10 * MIB)
    pool = SlabPool(shared)
    placed = [pool.put([bytes(3 * MIB)]) for _ in range(3)]
    for where in placed:
        assert where is not None
        pool.take_back(where)
    assert pool.put([bytes(8 * MIB)]) is not None
    assert shared.slab_bytes == 2 * MIB
    pool.close()


def test_all_pollers_of_a_process_have_one_allowance(fresh: None) -> None:
    assert Sharing().allowance is Sharing().allowance is of_process()


def test_it_is_a_quarter_of_what_the_process_may_have(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "memory_bytes", lambda: 400 * MIB)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert (of_process().descriptors, of_process().slab_bytes) == (256, 100 * MIB)


def test_no_limit_of_descriptors_is_not_none(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert of_process().descriptors > 1000


@pytest.mark.parametrize(("limit", "wanted"), [("67108864\n", 64 * MIB), ("max\n", None), (None, None)])
def test_a_container_s_memory_is_what_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, wanted: int | None
) -> None:
    path = tmp_path / "memory.max"
    if limit is not None:
        path.write_text(limit)
    monkeypatch.setattr(allowance, "_CGROUP_LIMITS", ())
    machine = memory_bytes()
    monkeypatch.setattr(allowance, "_CGROUP_LIMITS", (str(path),))
    assert memory_bytes() == (machine if wanted is None else wanted)


def test_threads_that_take_at_the_same_time_never_take_more_than_there_is() -> None:
    shared = Allowance(1000, 1000)
    refused = []

    def use() -> None:
        for _ in range(500):
            try:
                shared.take(1, 1)
            except SharedMemoryError:
                refused.append(1)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (shared.descriptors, shared.slab_bytes, len(refused)) == (0, 0, 1000)
