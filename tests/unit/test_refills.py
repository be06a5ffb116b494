"""Whatever a data loader fills again, and however: the loop sees what the plain loop sees, or an error."""

from __future__ import annotations

import ctypes
import random
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import InputError
from edldist.student.loop.reading import ReadAhead

PAD, BATCHES = 40_000, 24


class Padded:
    """Batches of one number each, between zeros: most places at which memory might be looked at never change.

    Args:
        way: who writes.
        buffers: how many there are, filled in turn.
        pad: bytes of zeros on either side.
    """

    def __init__(self, way: str, buffers: int = 1, pad: int = PAD, batches: int = BATCHES) -> None:
        self.way, self.pad, self.batches, self.buffers = way, pad, batches, buffers
        self.size = 2 * pad + 8
        with torch.inference_mode(way == "inference"):
            self.pool = torch.zeros(buffers, self.size, dtype=torch.uint8)
        self.array = np.zeros((buffers, self.size), np.uint8)
        self.bytes = [bytearray(self.size) for _ in range(buffers)]

    def __iter__(self):
        for number in range(self.batches):
            yield self.filled(number, number % self.buffers)

    def filled(self, number: int, slot: int):
        place, pool = slice(self.pad, self.pad + 1), self.pool[slot]
        if self.way == "from_numpy":
            self.array[slot, place] = number
            return torch.from_numpy(self.array[slot])
        if self.way == "array":
            self.array[slot, place] = number
            return self.array[slot]
        if self.way == "gaps":
            self.array[slot, self.pad] = number
            return torch.from_numpy(self.array[slot])[:: self.pad // 8]
        if self.way == "buffer":
            self.bytes[slot][place] = bytes([number])
            return torch.frombuffer(self.bytes[slot], dtype=torch.uint8)
        if self.way == "sparse":
            self.array[slot, place] = number
            values = torch.from_numpy(self.array[slot])
            return torch.sparse_coo_tensor(
                torch.arange(self.size)[None], values, is_coalesced=True, check_invariants=False
            )
        if self.way == "numpy":
            pool.numpy()[place] = number
        elif self.way == "address":
            ctypes.memset(pool.data_ptr() + self.pad, number, 1)
        elif self.way == "data":
            pool.data[place] = number
        elif self.way == "inference":
            with torch.inference_mode():
                pool[place] = number
        else:
            pool[place] = number
        return pool

    def number_of(self, made) -> int:
        if isinstance(made, np.ndarray):
            return int(made[self.pad])
        if made.layout is torch.sparse_coo:
            return int(made._values()[self.pad])
        return int(made[8 if self.way == "gaps" else self.pad])


WAYS = (
    *("torch", "numpy", "address", "data", "inference"),
    *("from_numpy", "array", "gaps", "buffer", "sparse"),
)


def read_ahead(batches, high: int, take=lambda batch: batch, **options) -> list:
    """What a loop gets that has so many batches open at once."""
    ahead = ReadAhead(batches, inputs=lambda batch: {"id": torch.zeros(1)}, **options)
    queue: list = []
    assert not ahead.begin()
    ahead.start()
    got = []
    while True:
        ahead.fill(lambda: len(queue) < high, queue.append)
        if ahead.ended:
            return got
        ahead.take()
        got.append(take(queue.pop(0).batch))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pad", [PAD, 3000])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"deep": [t]}, lambda t: SimpleNamespace(x=t)])
def test_one_buffer_is_refused_however_it_is_filled_again(way, pad, wrap):
    data = Padded(way, pad=pad)
    with pytest.raises(InputError, match="copy_batches=True"):
        read_ahead(map(wrap, data), high=3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(6))
def test_with_any_number_of_buffers_the_loop_sees_the_truth_or_an_error(way, seed):
    draw = random.Random(f"{way} {seed}")
    data = Padded(way, buffers=draw.randint(1, 6), pad=draw.choice([40, 9000, PAD]))
    high = draw.randint(1, 6)
    try:
        assert read_ahead(data, high, data.number_of) == list(range(BATCHES))
    except InputError as exc:
        assert "copy_batches=True" in str(exc) and high > 1


@pytest.mark.parametrize("way", [way for way in WAYS if way != "sparse"])
def test_with_enough_buffers_no_error_is_raised(way):
    data = Padded(way, buffers=5)
    assert read_ahead(data, 4, data.number_of) == list(range(BATCHES))


@pytest.mark.parametrize("way", WAYS)
def test_with_copies_the_loop_sees_the_truth(way):
    data = Padded(way)
    assert read_ahead(data, 4, data.number_of, copy_batches=True) == list(range(BATCHES))


def test_memory_that_is_cleared_and_never_yielded_again_is_refused():
    """As by a pool that a batch goes back to."""

    def batches():
        for number in range(4):
            batch = np.zeros(2 * PAD, np.uint8)
            batch[PAD] = number + 1
            yield torch.from_numpy(batch)
            batch[PAD] = 0

    with pytest.raises(InputError, match="written to"):
        read_ahead(batches(), 2)


def test_a_data_loader_that_begins_to_lend_late_is_refused():
    data = Padded("numpy")

    def batches():
        for _ in range(200):
            yield torch.zeros(2 * PAD, dtype=torch.uint8)
        yield from data

    with pytest.raises(InputError, match="written to"):
        read_ahead(batches(), 4)


CONTAINERS = {
    "dict": ({}, lambda b, t: b.update(x=t), lambda b: b["x"]),
    "list": ([None], lambda b, t: b.__setitem__(0, t), lambda b: b[0]),
    "deep": ({"a": [None]}, lambda b, t: b["a"].__setitem__(0, t), lambda b: b["a"][0]),
}


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("pad", [1, PAD])
def test_one_container_that_is_filled_again_is_what_the_plain_loop_sees(kind, pad):
    held, fill, read = CONTAINERS[kind]

    def batches():
        for number in range(BATCHES):
            fill(held, torch.full((pad,), number))
            yield held

    assert read_ahead(batches(), 4, lambda batch: read(batch)[0].item()) == list(range(BATCHES))


def test_numbers_beside_tensors_are_what_the_plain_loop_sees():
    names, held = [], {"x": torch.zeros(1), "names": []}

    def batches():
        for number in range(BATCHES):
            names[:] = [f"sample {number}"] * 40
            held.update(names=names, number=number)
            yield held

    got = read_ahead(batches(), 4, lambda batch: (batch["number"], batch["names"][7]))
    assert got == [(number, f"sample {number}") for number in range(BATCHES)]


class Slotted:
    __slots__ = ("names", "number", "x")


class OwnHolder:
    pass


@pytest.mark.parametrize("kind", [SimpleNamespace, Slotted, OwnHolder])
@pytest.mark.parametrize("wrap", [lambda b: b, lambda b: {"deep": [b]}])
def test_an_object_that_is_filled_again_is_what_the_plain_loop_sees(kind, wrap):
    held = kind()
    held.names = []

    def batches():
        for number in range(BATCHES):
            held.x, held.number, held.names[:] = torch.full((4,), number), number, [str(number)]
            yield wrap(held)

    def take(batch):
        batch = batch["deep"][0] if isinstance(batch, dict) else batch
        return int(batch.x[0]), batch.number, batch.names

    expected = [(number, number, [str(number)]) for number in range(BATCHES)]
    for copies in (False, True):
        assert read_ahead(batches(), 4, take, copy_batches=copies) == expected


def of_objects(part):
    made = np.empty(2, object)
    made[0] = part
    return made


def in_slots(part):
    held = Slotted()
    held.x = [part]
    return held


@pytest.mark.parametrize("make", [torch.zeros, np.zeros])
@pytest.mark.parametrize("size", [3, PAD])
@pytest.mark.parametrize(
    "wrap",
    [of_objects, in_slots, lambda part: SimpleNamespace(x={"a": [part]}), lambda part: deque([part])],
    ids=["objects", "slots", "namespace", "deque"],
)
def test_memory_that_is_filled_again_is_noticed_wherever_it_hangs(make, size, wrap):
    held = make(size)

    def batches():
        for number in range(BATCHES):
            held[size // 2] = number
            yield {"odd": wrap(held)}

    def take(batch):
        odd = batch["odd"]
        part = odd[0] if isinstance(odd, (np.ndarray, deque)) else odd.x
        part = part["a"] if isinstance(part, dict) else part
        return int((part[0] if isinstance(part, list) else part)[size // 2])

    with pytest.raises(InputError, match="written to"):
        read_ahead(batches(), 4)
    assert read_ahead(batches(), 4, take, copy_batches=True) == list(range(BATCHES))


def test_an_object_with_a_finaliser_that_is_filled_again_is_refused():
    class Handle:
        def __del__(self):
            pass

    held = Handle()

    def batches():
        for number in range(BATCHES):
            held.x = torch.full((4,), number)
            yield held

    with pytest.raises(InputError, match="a .*Handle in a batch was filled.*copy_batches=True"):
        read_ahead(batches(), 4)


def test_the_last_of_very_many_tensors_is_looked_at():
    held = [torch.zeros(4) for _ in range(2000)]

    def batches():
        for number in range(3):
            held[0].numpy()[:] = held[-1].numpy()[:] = number
            yield held

    with pytest.raises(InputError, match="written to"):
        read_ahead(batches(), 2)


# --- what is shared by right --------------------------------------------------------------------------


def test_what_all_batches_share_is_welcome_and_noticed_when_it_is_written_to():
    weights, table = torch.rand(PAD), torch.arange(100 * PAD).view(100, PAD)
    data = [{"weights": weights, "x": table[at : at + 2], "y": torch.full((PAD,), at)} for at in range(20)]
    got = read_ahead(data, 5)
    assert all(batch["weights"] is weights for batch in got)
    assert [int(batch["x"][0, 0]) for batch in got] == [at * PAD for at in range(20)]
    with pytest.raises(InputError, match="written to"):
        read_ahead(data, 5, lambda batch: batch["weights"].numpy().__setitem__(777, 3.0))


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_mapped_data_set_is_welcome(tmp_path, mode):
    np.arange(100 * PAD, dtype=np.int32).tofile(tmp_path / "data")
    data = np.memmap(tmp_path / "data", np.int32, mode).reshape(100, PAD)
    got = read_ahead((data[at : at + 2] for at in range(50)), 5, lambda batch: int(batch[1, 0]))
    assert got == [(at + 1) * PAD for at in range(50)]


@pytest.mark.timeout(240)
def test_what_a_data_loaders_worker_shares_among_its_batches_is_welcome():
    shared = torch.rand(PAD)
    loader = DataLoader(range(20), batch_size=2, num_workers=1, collate_fn=lambda ids: (ids, shared))
    got = read_ahead(loader, 4)
    assert [ids for ids, _ in got] == [[n, n + 1] for n in range(0, 20, 2)]
    assert all(torch.equal(part, shared) for _, part in got)


@pytest.mark.timeout(240)
def test_a_plain_data_loaders_large_batches_are_never_read_in_full(monkeypatch):
    def refused(*_):
        raise AssertionError("read in full")

    monkeypatch.setattr("edldist.student.memory.borrowed.zlib.crc32", refused)
    samples = [{"x": torch.zeros(PAD), "y": n} for n in range(8)]
    for workers in (0, 1):
        assert len(read_ahead(DataLoader(samples, batch_size=2, num_workers=workers), 3)) == 4
