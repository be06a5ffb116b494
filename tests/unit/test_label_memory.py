"""What the memory of a store holds, gives away and hands on to files: to the byte."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from edldist.store.kept_rows import KeptRows
from edldist.store.memory import Memory
from tests.unit.kept_labels import Labels
from tests.unit.stored_files import kept_rows

INDEX = 16 << 10  # an index of few keys
EACH = 56  # a sample with its key


def rows(first: int, last: int, lengths: bool = False, **names: int) -> KeptRows:
    return kept_rows(Labels(first, last, lengths, **names))


def found(memory: Memory, labels: KeptRows) -> list[bool]:
    numbers, samples = memory.find(labels.keys)
    for number, sample, key in zip(numbers, samples, labels.keys, strict=True):
        assert number < 0 or np.array_equal(memory.kept(int(number)).keys[sample], key)
    return (numbers >= 0).tolist()


def sealed_of(memory: Memory, labels: KeptRows) -> list[int]:
    """Samples of each segment that is full, once all of the labels were taken."""
    taken, sealed = memory.put(labels)
    assert taken == labels.samples
    return [segment.samples for segment in sealed]


@pytest.mark.parametrize("files", [False, True])
def test_what_is_sealed_often_takes_no_more_memory_than_there_are_labels(files: bool) -> None:
    """Each handful had 64 MiB of addresses to itself, until labels had to go."""
    memory = Memory(1 << 30, 1 << 30, files)
    tracemalloc.start()
    try:
        for first in range(0, 60, 3):
            memory.put(rows(first, first + 3))
            memory.seal()
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken_bytes < 1 << 20
    assert all(found(memory, rows(0, 60)))


@pytest.mark.parametrize("lengths", [False, True])
def test_what_is_held_is_counted_to_the_byte(lengths: bool) -> None:
    memory = Memory(1 << 20, 1 << 20, files=False)
    assert (memory.held_bytes, memory.evicted, memory.nbytes) == (0, 0, INDEX)
    for first in (0, 10):
        memory.put(rows(first, first + 10, lengths))
    assert memory.held_bytes == (20 * 40 + 60 * 24 if lengths else 20 * EACH)
    assert memory.nbytes == memory.held_bytes + INDEX


def test_the_memory_is_cut_into_sixteen_and_none_is_larger_than_a_file() -> None:
    assert Memory(16 << 20, 1 << 30, files=True).segment_bytes == 1 << 20
    assert Memory(16 << 20, 1 << 10, files=True).segment_bytes == 1 << 10
    assert Memory(1 << 40, 1 << 30, files=True).segment_bytes == 64 << 20
    memory = Memory(16 << 20, 1 << 19, files=True)
    memory.resize(4 << 20)
    assert (memory.most_bytes, memory.segment_bytes) == (4 << 20, 1 << 18)
    memory.resize(1 << 30)
    assert memory.segment_bytes == 1 << 19


def test_full_segments_are_handed_on_once_and_what_is_open_when_it_is_asked_for() -> None:
    memory = Memory(1 << 20, 10 * EACH, files=True)
    assert sealed_of(memory, rows(0, 10)) == []
    assert sealed_of(memory, rows(10, 35)) == [10, 10, 10]
    assert [segment.samples for segment in memory.seal()] == [5]
    assert memory.seal() == []
    assert all(found(memory, rows(0, 35)))
    assert [(kept.samples, len(those)) for kept, those in memory.all()] == [(10, 10)] * 3 + [(5, 5)]


def test_of_what_lies_in_files_nothing_is_among_all_that_does_not() -> None:
    memory = Memory(1 << 20, 10 * EACH, files=True)
    _, (first, *_) = memory.put(rows(0, 15))
    first.saved = True
    assert [kept.samples for kept, _ in memory.all()] == [5]
    alone = Memory(1 << 20, 10 * EACH, files=False)
    assert sealed_of(alone, rows(0, 15)) == [] and alone.seal() == []
    assert [kept.samples for kept, _ in alone.all()] == [10, 5], "there are no files"


def test_no_more_than_four_kinds_are_filled_at_once_and_the_one_that_waits_longest_is_closed() -> None:
    memory = Memory(1 << 20, 1 << 20, files=True)
    kinds = [{"values": 8 + number} for number in range(5)]
    for number in (0, 1, 2, 3):
        assert sealed_of(memory, rows(10 * number, 11 * number + 1, **kinds[number])) == []
    assert sealed_of(memory, rows(80, 81, **kinds[0])) == []
    assert sealed_of(memory, rows(90, 97, **kinds[4])) == [2], "the second one's"
    assert sealed_of(memory, rows(100, 102, **kinds[0])) == []
    assert [segment.samples for segment in memory.seal()] == [3, 4, 7, 4]


def test_what_is_full_is_closed_though_other_kinds_are_open() -> None:
    memory = Memory(1 << 20, 4 * EACH, files=True)
    sealed_of(memory, rows(0, 4))
    sealed_of(memory, rows(10, 11, lengths=True))
    assert sealed_of(memory, rows(4, 5)) == [4]
    assert [segment.samples for segment in memory.seal()] == [1, 1]


def test_a_segment_into_which_nothing_got_is_nowhere() -> None:
    memory = Memory(INDEX + 100, 1 << 20, files=True)
    assert memory.put(rows(0, 1, values=200)) == (0, [])
    assert memory.seal() == [] and memory.held_bytes == 0 and not list(memory.all())


def test_labels_are_taken_as_far_as_there_is_room_which_is_made_by_the_oldest_in_files() -> None:
    memory = Memory(INDEX + 40 * EACH, 10 * EACH, files=True)
    memory.segment_bytes = 10 * EACH
    _, sealed = memory.put(rows(0, 30))
    assert memory.put(rows(30, 60))[0] == 10, "of as many as fit into a segment"
    assert memory.held_bytes == 40 * EACH and memory.evicted == 0
    sealed[1].saved = True
    assert memory.put(rows(40, 60))[0] == 10
    assert memory.evicted == 10 and memory.held_bytes == 40 * EACH
    assert found(memory, rows(0, 60)) == [True] * 10 + [False] * 10 + [True] * 30 + [False] * 10


def test_what_was_used_last_goes_last() -> None:
    memory = Memory(INDEX + 30 * EACH, 10 * EACH, files=False)
    memory.segment_bytes = 10 * EACH
    for first in (0, 10, 20):
        memory.put(rows(first, first + 10))
    memory.kept(0)
    memory.put(rows(30, 40))
    assert found(memory, rows(0, 40)) == [True] * 10 + [False] * 10 + [True] * 20


def test_what_is_filled_is_used() -> None:
    memory = Memory(1 << 20, 1 << 20, files=False)
    for labels in (rows(0, 3), rows(10, 12, lengths=True), rows(3, 5)):
        memory.put(labels)
    memory.seal()
    memory.resize(memory.nbytes - 1)
    assert found(memory, rows(0, 5)) == [True] * 5 and memory.evicted == 2


def test_a_bound_that_is_met_exactly_costs_nothing() -> None:
    memory = Memory(1 << 20, 10 * EACH, files=False)
    memory.put(rows(0, 512))
    assert memory.nbytes == INDEX + 512 * EACH, "half of the index is taken"
    memory.resize(INDEX + 512 * EACH)
    assert memory.evicted == 0
    memory.resize(INDEX + 502 * EACH)
    assert memory.evicted == 10


def test_a_lower_bound_lets_go_at_once_of_what_may_go() -> None:
    memory = Memory(1 << 20, 10 * EACH, files=False)
    memory.put(rows(0, 35))
    memory.resize(INDEX + 20 * EACH)
    assert memory.evicted == 20 and memory.held_bytes == 15 * EACH
    memory.resize(INDEX)
    assert memory.evicted == 30 and memory.held_bytes == 5 * EACH, "what is being filled stays"


def test_what_is_withdrawn_is_found_no_more_and_gets_into_no_file() -> None:
    memory = Memory(1 << 20, 10 * EACH, files=True)
    _, sealed = memory.put(rows(0, 25))
    memory.withdraw(rows(8, 13).keys)
    memory.withdraw(rows(90, 91).keys)
    assert found(memory, rows(0, 25)) == [True] * 8 + [False] * 5 + [True] * 12
    assert [segment.for_a_file().samples for segment in (*sealed, *memory.seal())] == [8, 7, 5]
    assert [those.tolist() for _, those in memory.all()] == [
        list(range(8)),
        list(range(3, 10)),
        list(range(5)),
    ]


def test_a_key_that_came_twice_leads_to_the_later_labels() -> None:
    memory = Memory(1 << 20, 1 << 20, files=False)
    for _ in range(2):
        memory.put(rows(0, 3))
    assert memory.find(rows(0, 3).keys)[1].tolist() == [3, 4, 5]
    assert [those.tolist() for _, those in memory.all()] == [[3, 4, 5]]
