"""A slot is filled again only when nobody can look at it: no tensor, no view, no child of a fork."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.slab import DATA_START, Slab
from edldist.wire.shm.slabs import SlabPool
from edldist.wire.shm.slots import Filled, Slots

SIZE = 64 << 10


class Carried:
    """A descriptor on its way, as ``DupFd`` brings it."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)

    def detach(self) -> int:
        return self._fd


class Worker:
    """A data loader's worker, in this process."""

    def __init__(self, most_slabs: int = 4, clock=lambda: 0.0) -> None:
        self.pool = SlabPool(Allowance(100, 1 << 40), clock, most_slabs=most_slabs)

    def fill(self, content: int) -> Filled | None:
        slab = self.pool.reserve(SIZE)
        if slab is None:
            return None
        slab.data[:SIZE] = content
        return self.filled(slab)

    @staticmethod
    def filled(slab: Slab) -> Filled:
        handle = None if slab.known else Carried(slab.fd)
        return Filled(slab.address, slab.generation, SIZE, handle)


@pytest.fixture
def slots() -> Slots:
    return Slots(Allowance(100, 0))


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.pool.close()


def test_a_slot_is_mapped_once_however_often_it_comes(slots: Slots, worker: Worker) -> None:
    addresses = set()
    for content in range(10):
        filled = worker.fill(content)
        assert (filled.handle is None) == bool(content)
        memory = slots.receive(filled)
        assert (memory == content).all() and len(memory) == SIZE
        addresses.add(memory.ctypes.data)
        del memory
    assert len(addresses) == len(slots) == len(worker.pool) == 1


def test_a_view_keeps_a_slot_and_the_last_one_frees_it(slots: Slots, worker: Worker) -> None:
    memory = slots.receive(worker.fill(1))
    view = memory[5:10]
    del memory
    assert worker.fill(2).address != slots._kept[next(iter(slots._kept))].writer
    assert (view == 1).all() and len(worker.pool) == 2
    del view
    (slab,) = [slab for slab in worker.pool._slabs if slab.free]
    assert worker.fill(3).address == slab.address


def test_what_a_worker_goes_on_holding_after_it_was_sent_is_not_filled_again(
    slots: Slots, worker: Worker
) -> None:
    slab = worker.pool.reserve(SIZE)
    kept = slab.hold(SIZE)
    kept[:] = 1
    slots.receive(worker.filled(slab))
    assert worker.fill(2).address != slab.address and (kept == 1).all()
    del kept
    assert slab.free


def test_a_slot_in_use_is_found_by_where_it_begins(slots: Slots, worker: Worker) -> None:
    memory = slots.receive(worker.fill(1))
    address = memory.ctypes.data
    place = slots.file_of(address)
    assert place is not None and os.pread(place.fd, 4, DATA_START) == b"\1" * 4
    assert slots.file_of(address + 1) is None
    del memory
    assert slots.file_of(address) is None


def test_own_slabs_are_lent_and_come_back(slots: Slots, worker: Worker) -> None:
    slab = worker.pool.reserve(SIZE)
    memory = slots.lend(slab, SIZE)
    assert slots.file_of(memory.ctypes.data) == slab.address and not slab.free
    assert worker.pool.reserve(SIZE) is not slab
    del memory
    assert slab.free and worker.pool.reserve(SIZE) is slab


def test_what_was_in_use_when_the_process_forked_is_never_filled_again(slots: Slots, worker: Worker) -> None:
    free = slots.receive(worker.fill(1))
    used = slots.receive(worker.fill(2))
    first, second = worker.pool._slabs
    del free
    slots.spend()
    del used
    assert worker.fill(3).address == first.address and second not in worker.pool._slabs
    assert slots.receive(worker.fill(4))[0] == 4, "another slab, whose descriptor comes along"


def test_a_forked_child_releases_nothing_and_keeps_no_files(slots: Slots, worker: Worker) -> None:
    used = slots.receive(worker.fill(1))
    free = slots.receive(worker.fill(2))
    del free
    child = os.fork()
    if child == 0:
        slots.forget()
        good = len(slots) == 0 and bool((used == 1).all())
        del used
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert not worker.pool._slabs[0].free and len(slots) == 2
    del used


def test_slots_of_a_writer_that_is_gone_are_let_go_with_their_last_use() -> None:
    allowance = Allowance(100, 0)
    slots, worker = Slots(allowance), Worker()
    memories = [slots.receive(worker.fill(content)) for content in range(3)]
    del memories[0]
    worker.pool.close()
    assert len(slots) == 3 and [int(memory[0]) for memory in memories] == [1, 2]
    memories.clear()
    assert len(slots) == 0 and allowance.descriptors == 100


def test_without_descriptors_a_slot_is_used_once_and_let_go(worker: Worker) -> None:
    slots, before = Slots(Allowance(1, 0)), len(os.listdir("/proc/self/fd"))
    for content in range(5):
        filled = worker.fill(content)
        assert filled.handle is not None
        assert slots.receive(filled)[0] == content and len(slots) == 0
    worker.pool.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("nbytes", [0, -1, SIZE + (1 << 20)])
def test_more_than_a_slab_has_is_refused(slots: Slots, worker: Worker, nbytes: int) -> None:
    with pytest.raises(SharedMemoryError, match="in a slab of"):
        slots.receive(worker.fill(1)._replace(nbytes=nbytes))


def test_another_file_than_was_said_is_refused(slots: Slots, worker: Worker, tmp_path) -> None:
    filled = worker.fill(1)
    with open(tmp_path / "own", "wb+") as file:
        file.truncate(1 << 20)
        with pytest.raises(SharedMemoryError, match="another file than it said"):
            slots.receive(filled._replace(handle=Carried(file.fileno())))
    with pytest.raises(SharedMemoryError, match="never came here"):
        slots.receive(filled._replace(handle=None))
    filled.handle.detach()


class Ended:
    """What a worker that was killed leaves of a descriptor that it sent."""

    def detach(self) -> int:
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_worker_that_ended_with_a_batch_on_its_way_is_named(slots: Slots, worker: Worker) -> None:
    filled = worker.fill(1)
    with pytest.raises(SharedMemoryError, match=rf"process {os.getpid()} .* ended, a batch on its way"):
        slots.receive(filled._replace(handle=Ended()))
    filled.handle.detach()


_steps = st.lists(
    st.tuples(st.sampled_from(["fill", "receive", "drop", "fork", "lose", "later"]), st.integers(0, 9)),
    max_size=60,
)


@given(_steps)
def test_nobody_ever_sees_another_batch_than_the_one_he_was_given(steps: list[tuple[str, int]]) -> None:
    """However batches are made, received, kept, lost and forked: each stays what it was to its holders."""
    now = [0.0]
    slots, worker = Slots(Allowance(100, 0)), Worker(3, lambda: now[0])
    sent: list[tuple[int, Filled]] = []
    held: list[tuple[int, np.ndarray]] = []
    forked: list[tuple[int, int]] = []  # content, and where a child sees it, through the parent's mapping
    mappings: list[object] = []
    made = 0
    for step, number in steps:
        if step == "fill":
            made = made % 250 + 1
            if (filled := worker.fill(made)) is not None:
                sent.append((made, filled))
        elif step == "receive" and sent:
            content, filled = sent.pop(0)
            held.append((content, slots.receive(filled)))
        elif step == "drop" and held:
            del held[number % len(held)]
        elif step == "fork":
            slots.spend()
            forked += [(content, len(mappings) + place) for place, (content, _) in enumerate(held)]
            mappings += [memory.base for _, memory in held]
        elif step == "lose" and sent:
            _, filled = sent.pop()
            if filled.handle is not None:
                os.close(filled.handle.detach())
        elif step == "later":
            now[0] += 20.0
        assert all((memory == content).all() for content, memory in held)
        for content, place in forked:
            assert np.frombuffer(mappings[place], np.uint8, SIZE, DATA_START)[0] == content
        assert len(worker.pool) <= 3
    for _, filled in sent:
        if filled.handle is not None:
            os.close(filled.handle.detach())
    worker.pool.close()
