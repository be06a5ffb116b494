"""What a shelf says of its labels without reading them, and what it gives to those who want them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edldist import LabelStore
from edldist.errors import StoreError
from edldist.store.shelf import Shelf
from tests.unit.kept_labels import Labels, recipe


@pytest.fixture
def memory() -> Iterator[Shelf]:
    with LabelStore(None) as store:
        yield store.shelf(recipe())


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Shelf]:
    with LabelStore(tmp_path) as store:
        yield store.shelf(recipe())


def told(flags: Any) -> list[bool]:
    assert flags.dtype == np.bool_
    return flags.tolist()


def test_in_files_is_what_was_written_and_kept_is_what_is_anywhere(files: Shelf, memory: Shelf) -> None:
    for shelf in (files, memory):
        Labels(0, 2).put(shelf)
        shelf.flush(60)
        Labels(2, 3).put(shelf)
        asked = Labels(0, 4).keys
        assert told(shelf.keeps(asked)) == [True, True, True, False]
        assert told(shelf.holds(asked)) == ([True, True, False, False] if shelf is files else [False] * 4)
        assert told(shelf.holds(asked, checked=True)) == told(shelf.holds(asked))
        assert (shelf.figures()["hits"], shelf.figures()["misses"]) == (0, 0), "nothing was looked for"


def test_what_is_withdrawn_is_counted_and_gone_from_memory_and_files(files: Shelf, memory: Shelf) -> None:
    for shelf in (files, memory):
        Labels(0, 4).put(shelf)
        shelf.flush(60)
        shelf.withdraw(Labels(1, 3).keys)
        shelf.withdraw(Labels(3, 4).keys)
        assert shelf.figures()["withdrawn"] == 3
        shelf.flush(60)
        assert told(shelf.keeps(Labels(0, 4).keys)) == [True, False, False, False]


def test_who_reads_all_has_each_sample_once_though_it_gets_to_a_file_meanwhile(files: Shelf) -> None:
    Labels(0, 3).put(files)
    assert files.flush(60)
    Labels(3, 6).put(files)
    every = files.kept()
    first = next(every)
    assert files.flush(60)
    assert first.samples + sum(kept.samples for kept in every) == 6


@pytest.mark.parametrize("checked", [False, True])
def test_a_sample_with_the_same_first_64_bits_as_another_is_not_taken_for_that_one(
    files: Shelf, checked: bool
) -> None:
    """Who labels ahead would take it for labelled, and nobody would find its labels."""
    labels = Labels(0, 4)
    labels.put(files)
    assert files.flush(60)
    others = labels.keys.copy()
    others[::2, 20] ^= 1
    assert told(files.holds(others, checked=checked)) == [False, True] * 2


def test_a_shelf_in_memory_has_nothing_in_files(memory: Shelf) -> None:
    Labels(0, 4).put(memory)
    figures = memory.figures()
    nothing = {"hits", "misses", "evicted", "dropped", "withdrawn", "damaged"}
    nothing |= {"written", "stored", "index_bytes", "disk_bytes"}
    assert {name: value for name, value in figures.items() if name in nothing} == dict.fromkeys(nothing, 0)
    assert figures["put"] == 4 and figures["memory_bytes"] > 4 * 56


def test_of_no_samples_nothing_is_found(memory: Shelf) -> None:
    assert memory.find(np.zeros((0, 32), np.uint8)) is None


def test_of_labels_of_several_shapes_those_are_found_that_the_first_of_the_batch_has(memory: Shelf) -> None:
    for labels in (Labels(0, 2), Labels(2, 4, ids=8, values=17), Labels(4, 6, lengths=True)):
        labels.put(memory)
    keys = Labels(0, 7).keys
    for order, hits in (
        ([6, 3, 0, 2, 4], [0, 1, 0, 1, 0]),
        ([0, 4, 3, 1], [1, 0, 0, 1]),
        ([5, 0, 4], [1, 0, 1]),
    ):
        found = memory.find(keys[order])
        assert found is not None and found.hit.tolist() == [bool(hit) for hit in hits]


def test_labels_that_are_larger_than_the_memory_are_dropped_and_counted() -> None:
    with LabelStore(None, memory_bytes=1 << 20) as store:
        shelf = store.shelf(recipe())
        assert Labels(0, 2, ids=2_000_000).put(shelf) == 2
        assert (shelf.figures()["dropped"], shelf.figures()["put"]) == (2, 0)


def test_a_lower_bound_lets_go_of_labels_at_once(memory: Shelf) -> None:
    for first, last in ((0, 50), (50, 60)):
        Labels(first, last, values=30_000).put(memory)
        memory.seal()
    memory.resize(1 << 20)
    assert told(memory.keeps(Labels(0, 60).keys)) == [False] * 50 + [True] * 10


@pytest.mark.parametrize("witness", [1, 3])
def test_digests_of_inputs_are_needed_for_each_sample(witness: int) -> None:
    labels = Labels(0, 2)
    with LabelStore(None) as store:
        shelf = store.shelf(recipe(data="train"))
        with pytest.raises(StoreError, match=f"{witness} digests of inputs for 2 keys"):
            shelf.put(labels.keys, labels.specs, labels.frames, np.zeros((witness, 32), np.uint8))


def test_copies_of_what_lies_elsewhere_go_with_the_shelf(tmp_path: Path) -> None:
    url, labels = f"memory://{tmp_path.name}/labels", Labels(0, 4)
    with LabelStore(url) as store:
        labels.put(store.shelf(recipe()))
    with LabelStore(url) as store:
        shelf = store.shelf(recipe())
        assert labels.are_found(shelf)
        place: Any = shelf.files.place  # type: ignore[union-attr]
        (name,) = place.entries()
        copy = place._copies.path(name)
        assert copy.exists()
        shelf.close()
        assert not copy.exists()
