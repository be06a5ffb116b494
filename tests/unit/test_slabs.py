"""Slabs: one message each until its reader releases it, bounded, never blocking, never lost for good."""

from __future__ import annotations

import errno
import os

import pytest

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.mappings import Mappings
from edldist.wire.shm.slab import DATA_START
from edldist.wire.shm.slabs import Placed, SlabPool

SIZE = 100_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Reader:
    """The other side, in this process."""

    def __init__(self) -> None:
        self.mappings = Mappings(Allowance(100, 1 << 40))

    def read(self, placed: Placed | None):
        assert placed is not None
        address, generation, _ = placed
        return self.mappings.slab(address, generation)


@pytest.fixture
def pool():
    pool = SlabPool(Allowance(100, 1 << 40))
    yield pool
    pool.close()


def test_frames_lie_where_they_are_said_to(pool: SlabPool) -> None:
    frames = [os.urandom(SIZE), os.urandom(SIZE + 1), bytearray(b"k" * SIZE)]
    placed = pool.put(frames)
    memory = Reader().read(placed)
    assert [
        bytes(memory[start : start + len(f)]) for start, f in zip(placed[2], frames, strict=True)
    ] == frames
    assert placed[2][0] >= DATA_START and all(start % 64 == 0 for start in placed[2])


def test_a_slab_is_used_again_only_when_the_last_frame_was_dropped(pool: SlabPool) -> None:
    reader = Reader()
    first = pool.put([b"a" * SIZE])
    memory = reader.read(first)
    frame = memory[DATA_START : DATA_START + 10].data
    del memory
    second = pool.put([b"b" * SIZE])
    assert second[0] != first[0] and len(pool) == 2
    assert bytes(frame) == b"a" * 10
    del frame
    third = pool.put([b"c" * SIZE])
    assert third[0] == first[0] and third[1] > second[1] and len(pool) == 2


def test_a_slab_that_was_never_read_is_not_used_again(pool: SlabPool) -> None:
    addresses = [pool.put([b"a" * SIZE])[0] for _ in range(8)]
    assert len(set(addresses)) == 8
    assert pool.under_way


def test_a_pool_is_bounded_in_number_and_says_so(pool: SlabPool) -> None:
    placed = [pool.put([b"a" * SIZE]) for _ in range(9)]
    assert None not in placed[:8] and placed[8] is None
    Reader().read(placed[3])  # and dropped at once
    assert pool.put([b"b" * SIZE])[0] == placed[3][0]


def test_a_pool_is_bounded_in_bytes() -> None:
    pool = SlabPool(Allowance(100, 1 << 40), most_bytes=1 << 20)
    assert pool.put([bytes(600_000)]) is not None
    assert pool.put([bytes(600_000)]) is None, "the second would exceed the bound"
    assert pool.put([bytes(2 << 20)]) is None, "one alone would"
    assert pool.nbytes <= 1 << 20
    pool.close()


def test_free_slabs_that_are_too_small_make_room() -> None:
    pool = SlabPool(Allowance(100, 1 << 40), most_bytes=1 << 20)
    Reader().read(pool.put([bytes(600_000)]))
    assert pool.put([bytes(1_000_000)]) is not None
    assert len(pool) == 1
    pool.close()


def test_a_message_that_could_not_be_sent_gives_its_slab_back(pool: SlabPool) -> None:
    placed = pool.put([bytes(SIZE)])
    pool.take_back(placed)
    assert not pool.under_way
    assert pool.put([bytes(SIZE)])[0] == placed[0]


def test_lost_messages_do_not_occupy_a_pool_for_ever() -> None:
    clock = Clock()
    pool, reader = SlabPool(Allowance(100, 1 << 40), clock), Reader()
    lost = [pool.put([bytes(SIZE)]) for _ in range(7)]
    last = pool.put([bytes(SIZE)])
    clock.now = 60.0
    assert pool.put([bytes(SIZE)]) is None, "the reader may just be slow: nothing later was released"
    reader.read(last)
    assert pool.put([bytes(SIZE)])[0] == last[0]
    clock.now += 1.0
    assert pool.put([bytes(SIZE)]) is not None, "it released a later one: the others were lost"
    assert lost[0] is not None
    pool.close()


def test_a_young_message_is_not_given_up() -> None:
    clock = Clock()
    pool, reader = SlabPool(Allowance(100, 1 << 40), clock), Reader()
    for _ in range(7):
        pool.put([bytes(SIZE)])
    reader.read(pool.put([bytes(SIZE)]))
    pool.put([bytes(SIZE)])
    clock.now = 29.0
    assert pool.put([bytes(SIZE)]) is None
    pool.close()


def test_descriptors_are_bounded_and_come_back() -> None:
    allowance = Allowance(5, 1 << 40)
    pool = SlabPool(allowance)
    assert pool.put([bytes(SIZE)]) and pool.put([bytes(SIZE)])
    with pytest.raises(SharedMemoryError, match="quarter of this process's descriptors.*ulimit -n"):
        pool.put([bytes(SIZE)])
    pool.close()
    assert allowance.descriptors == 5


def test_a_reader_without_descriptors_to_spare_reads_all_the_same(pool: SlabPool) -> None:
    mappings = Mappings(Allowance(1, 1 << 40))
    files = len(os.listdir("/proc/self/fd"))
    for content in (b"a", b"b", b"c", b"d"):
        address, generation, [start] = pool.put([content * SIZE])
        assert bytes(mappings.slab(address, generation)[start : start + SIZE]) == content * SIZE
        pool.put([content * SIZE])  # never read, so that the next one needs another slab
    assert len(mappings) == 1
    pool.close()
    mappings.close()
    assert len(os.listdir("/proc/self/fd")) <= files


def test_closing_gives_every_descriptor_back_to_the_system() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pool, reader = SlabPool(Allowance(100, 1 << 40)), Reader()
    for _ in range(4):
        reader.read(pool.put([bytes(SIZE)]))
        pool.put([bytes(SIZE)])
    assert len(os.listdir("/proc/self/fd")) > before
    pool.close()
    reader.mappings.close()
    del pool, reader
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_reader_keeps_what_it_has_when_the_pool_closes(pool: SlabPool) -> None:
    placed = pool.put([b"x" * SIZE])
    memory = Reader().read(placed)
    pool.close()
    assert bytes(memory[DATA_START : DATA_START + SIZE]) == b"x" * SIZE


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EMFILE])
def test_too_little_memory_is_one_error_and_leaks_no_descriptor(
    pool: SlabPool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*args: int) -> None:
        raise OSError(number, os.strerror(number))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(SharedMemoryError, match=os.strerror(number)):
        pool.put([bytes(SIZE)])
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.undo()
    assert pool.put([bytes(SIZE)]) is not None


def test_a_forked_child_releases_nothing(pool: SlabPool) -> None:
    """Data-loader workers are forked while labels are read; their copies of the frames end with them."""
    memory = Reader().read(pool.put([b"a" * SIZE]))
    child = os.fork()
    if child == 0:
        del memory
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert not any(slab.free for slab in pool._slabs)
    del memory
    assert all(slab.free for slab in pool._slabs)
