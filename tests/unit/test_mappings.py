"""A reader maps what a batch lies in once, and keeps a bounded part of what it mapped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.wire.shm import mappings as module
from edldist.wire.shm.allowance import Allowance
from edldist.wire.shm.lending import Lent, lend
from edldist.wire.shm.mappings import Mappings

ROWS, ROW_BYTES = 8, 64 << 10


def batch(inputs: int) -> tuple[list[torch.Tensor], list[Lent]]:
    """Inputs of 512 KiB each that a data loader's workers could have made."""
    tensors = [torch.full((ROWS, ROW_BYTES), n, dtype=torch.uint8).share_memory_() for n in range(inputs)]
    lent = [lend(tensor) for tensor in tensors]
    assert all(lent)
    return tensors, [one for one in lent if one is not None]


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every file that is mapped from now on."""
    mapped: list[object] = []
    map_file = module._map

    def count(address, *, sealed):
        mapped.append(address)
        return map_file(address, sealed=sealed)

    monkeypatch.setattr(module, "_map", count)
    return mapped


@pytest.fixture
def mappings() -> Iterator[Mappings]:
    made = Mappings(Allowance(1000, 0))
    yield made
    made.close()


def read(mappings: Mappings, lent: list[Lent], row: int) -> None:
    """One task of the batch: a row of every input."""
    mappings.next_message()
    for number, one in enumerate(lent):
        start = one.offset + row * ROW_BYTES
        memory = mappings.lent(one.address, start, start + ROW_BYTES)
        assert memory[start] == memory[start + ROW_BYTES - 1] == number


@pytest.mark.parametrize("inputs", [1, 3, 100])
def test_a_batch_that_is_cut_into_tasks_is_mapped_once(
    mappings: Mappings, maps: list[object], inputs: int
) -> None:
    tensors, lent = batch(inputs)
    for row in range(ROWS):
        read(mappings, lent, row)
    assert len(maps) == inputs
    del tensors


def test_inputs_larger_than_the_bound_are_mapped_once_too(
    mappings: Mappings, maps: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LENT_BYTES", ROWS * ROW_BYTES)
    mappings = Mappings(Allowance(1000, 0))
    tensors, lent = batch(3)
    for row in range(ROWS):
        read(mappings, lent, row)
    assert len(maps) == 3
    mappings.close()
    del tensors


def test_what_is_kept_is_bounded_in_number_and_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, value in (("_MOST_LENT", 4), ("_MOST_LENT_BYTES", 4 * ROWS * ROW_BYTES + (64 << 10))):
        with monkeypatch.context() as patch:
            patch.setattr(module, bound, value)
            allowance = Allowance(1000, 0)
            mappings = Mappings(allowance)
            for _ in range(10):
                tensors, lent = batch(2)
                read(mappings, lent, 0)
                assert len(mappings) <= 4 and allowance.descriptors == 1000 - len(mappings)
            mappings.close()
            assert allowance.descriptors == 1000
            del tensors


def test_without_a_descriptor_to_spare_nothing_is_kept_and_nothing_lost(maps: list[object]) -> None:
    mappings = Mappings(Allowance(0, 0))
    tensors, lent = batch(3)
    for row in range(ROWS):
        read(mappings, lent, row)
    assert len(maps) == 3 * ROWS and len(mappings) == 0
    del tensors


# --- memory that its owner fills again ----------------------------------------------------------------

PAGE = mmap.PAGESIZE


class Owner:
    """Memory of 32 pages that is filled again and again."""

    def __init__(self) -> None:
        self.tensor = torch.zeros(32 * PAGE, dtype=torch.uint8).share_memory_()
        lent = lend(self.tensor)
        assert lent is not None
        self.lent = lent

    def read(self, mappings: Mappings, start: int, stop: int) -> np.ndarray:
        mappings.next_message()
        return mappings.lent(self.lent.address, self.lent.offset + start, self.lent.offset + stop)[
            self.lent.offset + start : self.lent.offset + stop
        ]


def test_memory_that_is_filled_again_is_read_where_it_is_mapped(
    mappings: Mappings, maps: list[object]
) -> None:
    owner = Owner()
    for content in range(1, 20):
        owner.tensor.fill_(content)
        for half in (0, 16 * PAGE):
            assert (owner.read(mappings, half, half + 16 * PAGE) == content).all()
    assert len(maps) == 1


def test_what_the_reader_wrote_there_is_not_read_again(mappings: Mappings, maps: list[object]) -> None:
    owner = Owner()
    owner.tensor.fill_(1)
    owner.read(mappings, 100, 5000)[:10] = 7  # in a way that torch does not count
    owner.tensor.fill_(2)
    assert (owner.read(mappings, 100, 5000) == 2).all()
    assert len(maps) == 2


def test_a_neighbour_in_a_page_that_the_reader_wrote_to_is_mapped_anew(
    mappings: Mappings, maps: list[object]
) -> None:
    owner = Owner()
    owner.read(mappings, 0, PAGE // 2)[:] = 7
    owner.tensor.fill_(2)
    assert (owner.read(mappings, PAGE // 2, PAGE) == 2).all()
    assert (owner.read(mappings, PAGE, 2 * PAGE) == 2).all()
    assert len(maps) == 2


def test_what_somebody_holds_is_mapped_once_more_for_another(mappings: Mappings, maps: list[object]) -> None:
    owner = Owner()
    owner.tensor.fill_(1)
    held = owner.read(mappings, 0, 4 * PAGE)
    again = owner.read(mappings, 2 * PAGE, 6 * PAGE)
    held[:] = 7
    assert (again == 1).all() and len(maps) == 2


def test_where_the_kernel_says_nothing_of_pages_every_reading_has_its_own(
    mappings: Mappings, maps: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "look", lambda address, nbytes: None)
    owner = Owner()
    for content in (1, 2, 3):
        owner.tensor.fill_(content)
        assert (owner.read(mappings, 0, PAGE) == content).all()
    assert len(maps) == 3


_places = st.integers(0, 32 * PAGE - 1)


@given(st.lists(st.tuples(st.sampled_from(["fill", "read", "write", "drop"]), _places, _places), max_size=30))
def test_whatever_readers_write_and_hold_a_reading_is_what_the_owner_has(
    steps: list[tuple[str, int, int]],
) -> None:
    """Readers of a past content may hold and change it; who reads now sees none of that."""
    owner, mappings, content = Owner(), Mappings(Allowance(1000, 0)), 0
    held: list[np.ndarray] = []
    for step, one, other in steps:
        start, stop = min(one, other), max(one, other) + 1
        if step == "fill":
            content = content % 199 + 1
            owner.tensor.fill_(content)
        elif step == "read":
            part = owner.read(mappings, start, stop)
            assert (part == content).all()
            held.append(part)
        elif held:
            part = held[one % len(held)]
            if step == "write":
                part[: 1 + other % len(part)] = 255
            else:
                held = [each for each in held if each is not part]
            del part
    mappings.close()
