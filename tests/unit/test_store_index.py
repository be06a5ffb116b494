"""Where the labels of a key lie, and how many fit: against plain dictionaries."""

from __future__ import annotations

import threading

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.store.key_index import NOWHERE, KeyIndex
from edldist.store.memory import Memory
from edldist.store.recipe import Recipe
from edldist.store.shelf import Shelf
from tests.unit.kept_labels import Labels, recipe

PREFIXES = st.integers(0, 40)
BATCH = st.lists(PREFIXES, max_size=30)


def _keys(prefixes: list[int], crowded: bool) -> np.ndarray:
    """Keys with these 64-bit prefixes; crowded ones all want one slot of a table."""
    keys = np.zeros((len(prefixes), 32), np.uint8)
    spread = [(prefix << 40) if crowded else prefix * 0x9E3779B97F4A7C15 % 2**64 for prefix in prefixes]
    keys[:, :8] = np.array(spread, np.uint64).view(np.uint8).reshape(-1, 8)
    return keys


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("put"), BATCH),
            st.tuples(st.just("drop"), st.tuples(st.integers(0, 400), st.integers(0, 400))),
        ),
        max_size=25,
    ),
    crowded=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_an_index_is_a_dictionary(steps, crowded):
    index, known, place = KeyIndex(), {}, 0
    for what, given_ in steps:
        if what == "put":
            places = list(range(place, place + len(given_)))
            place += len(given_)
            index.put(_keys(given_, crowded), np.array(places, np.int64))
            known.update(zip(given_, places, strict=True))
        else:
            first, stop = sorted(given_)
            index.drop(first, stop)
            known = {prefix: at for prefix, at in known.items() if not first <= at < stop}
        everything = list(range(41))
        found = index.find(_keys(everything, crowded))
        assert found.tolist() == [known.get(prefix, NOWHERE) for prefix in everything]
        assert index.keys == len(known)


def test_an_index_grows_and_forgets_without_end():
    index = KeyIndex()
    rng = np.random.default_rng(0)
    for number in range(40):
        keys = rng.integers(0, 256, (1000, 32), np.uint8)
        index.put(keys, np.arange(1000) + number * 1000)
        if number >= 4:
            index.drop((number - 4) * 1000, (number - 3) * 1000)
        assert np.array_equal(index.find(keys), np.arange(1000) + number * 1000)
    assert index.keys == 4000
    assert index.nbytes <= 16 * 32_768, "what is gone takes room"


def test_an_index_says_what_it_will_take():
    index = KeyIndex()
    rng = np.random.default_rng(0)
    for size in (10, 300, 301, 5000, 1):
        said = index.nbytes_with(size)
        index.put(rng.integers(0, 256, (size, 32), np.uint8), np.arange(size))
        assert index.nbytes == said


def test_an_index_grows_when_half_of_it_is_taken_and_shrinks_when_most_of_that_is_gone():
    keys = np.random.default_rng(0).integers(0, 256, (3000, 32), np.uint8)
    index = KeyIndex()
    assert index.nbytes_with(512) == 16 * 1024 and index.nbytes_with(513) == 16 * 2048
    index.put(keys[:512], np.arange(512))
    assert index.nbytes == index.nbytes_with(0) == 16 * 1024
    index.put(keys[512:513], np.array([512]))
    assert index.nbytes == 16 * 2048
    assert index.find(keys[:514]).tolist() == [*range(513), NOWHERE], "all have moved"
    index = KeyIndex()
    index.put(keys[:2000], np.arange(2000))
    assert index.nbytes == 16 * 8192
    index.drop(0, 1512)
    assert (index.keys, index.nbytes) == (488, 16 * 8192)
    index.drop(1512, 1513)
    assert (index.keys, index.nbytes) == (487, 16 * 2048), "more than twice as many and a thousand are gone"
    assert index.find(keys[:2000]).tolist() == [NOWHERE] * 1513 + list(range(1513, 2000))


def test_keys_are_removed_wherever_they_lie_and_those_that_are_not_there_are_no_matter():
    keys = np.random.default_rng(0).integers(0, 256, (6, 32), np.uint8)
    index = KeyIndex()
    index.put(keys[:5], np.array([7, 0, 3, 1, 9]))
    index.remove(keys[[1, 4, 5]])
    assert index.find(keys).tolist() == [7, NOWHERE, 3, 1, NOWHERE, NOWHERE] and index.keys == 3


def test_of_two_keys_with_the_same_first_64_bits_neither_gets_the_labels_of_the_other():
    """The whole key is compared: a shorter one would give somebody the labels of another sample one day."""
    memory = Memory(1 << 20, 1 << 20, files=False)
    shelf = _shelf(memory)
    labels, other = Labels(0, 1), Labels(1, 2)
    other.keys = labels.keys.copy()
    other.keys[:, 20] ^= 1
    labels.put(shelf)
    assert shelf.find(other.keys) is None
    other.put(shelf)
    assert labels.are_found(shelf) and shelf.find(other.keys) is None


@given(sizes=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_memory_is_bounded_and_what_it_finds_is_right(sizes):
    memory = Memory(128 << 10, 1 << 20, files=False)
    shelf = _shelf(memory)
    first, put = 0, []
    for size, lengths in sizes:
        labels = Labels(first, first + size, lengths, ids=100, values=200)
        first += size
        assert labels.put(shelf) == 0
        put.append(labels)
        assert labels.are_found(shelf), "what came last is there"
        assert memory.nbytes <= memory.most_bytes
    for labels in put:
        found = shelf.find(labels.keys)
        if found is not None:
            rows = np.repeat(found.hit, labels.lengths or [1] * len(found.hit))
            assert np.array_equal(found.rows("values"), labels.tables["values"][rows])


def test_the_least_recently_used_labels_go_first():
    memory = Memory(128 << 10, 1 << 20, files=False)
    shelf = _shelf(memory)
    used, unused = Labels(0, 10, ids=700), Labels(10, 20, ids=700)
    used.put(shelf)
    shelf.seal()
    unused.put(shelf)
    shelf.seal()
    for first in range(100, 300, 10):
        Labels(first, first + 10, ids=700).put(shelf)
        assert used.are_found(shelf)
    assert shelf.find(unused.keys) is None
    assert memory.evicted


def test_labels_that_are_in_no_file_yet_do_not_go():
    memory = Memory(128 << 10, 1 << 20, files=True)
    shelf = _shelf(memory)
    first = Labels(0, 50, ids=1000)
    first.put(shelf)
    dropped = sum(Labels(at, at + 50, ids=1000).put(shelf) for at in range(50, 500, 50))
    assert dropped > 200
    assert first.are_found(shelf)
    assert shelf.figures()["dropped"] == dropped


def test_a_sample_larger_than_the_memory_is_dropped_and_nothing_else():
    shelf = _shelf(Memory(128 << 10, 1 << 20, files=False))
    assert Labels(0, 1, ids=200_000).put(shelf) == 1
    labels = Labels(1, 2, ids=20_000)  # more than a segment
    labels.put(shelf)
    assert labels.are_found(shelf)


def _shelf(memory: Memory) -> Shelf:

    made_by: Recipe = recipe()
    return Shelf(made_by, memory, None, None, threading.RLock())
