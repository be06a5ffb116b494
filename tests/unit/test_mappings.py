"""A reader maps what a batch lies in once, and keeps a bounded part of what it mapped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

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
