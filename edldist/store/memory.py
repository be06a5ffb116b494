"""Labels in memory up to a bound: in segments, of which the least recently used goes first. Pure.

States of a segment::

    OPEN --(full, or asked for)--> SEALED --(written to a file)--> SAVED --(room is needed)--> gone
                                      |                              ^
                                      +----(there is no file to be)--+

Labels that are not in a file yet do not go: where nothing else can, what comes is turned away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from edldist.store.kept_rows import KeptRows, Numbers
from edldist.store.key_index import KeyIndex
from edldist.store.sample_key import Keys
from edldist.store.segment import Segment

__all__ = ["LEAST_MEMORY_BYTES", "Memory"]

LEAST_MEMORY_BYTES = 1 << 20
_SEGMENTS = 16
"""Into how many the memory is divided: so much of it, at most, goes at once."""
_LARGEST_SEGMENT = 64 << 20
_MOST_OPEN = 4
_SAMPLE_BITS = 32


class Memory:
    """Labels by key, in segments.

    Args:
        most_bytes: bound on all of it: labels, keys and the index.
        file_bytes: of a file, at most.
        files: whether labels go to files before they may go from here.

    Attributes:
        held_bytes: by labels and their keys.
        evicted: samples that had to go.
    """

    def __init__(self, most_bytes: int, file_bytes: int, files: bool) -> None:
        self.most_bytes = most_bytes
        self.files = files
        self._largest = min(_LARGEST_SEGMENT, file_bytes)
        self.segment_bytes = min(self._largest, most_bytes // _SEGMENTS)
        self.evicted = self.held_bytes = 0
        self._index = KeyIndex()
        self._segments: OrderedDict[int, Segment] = OrderedDict()  # least recently used first
        self._open: list[int] = []  # most recently filled last
        self._next = 0

    @property
    def nbytes(self) -> int:
        """Memory in use, in bytes."""
        return self.held_bytes + self._index.nbytes

    def find(self, keys: Keys) -> tuple[Numbers, Numbers]:
        """Segment and sample of each key, the segment -1 where it is not there: two int64 [n]."""
        places = self._index.find(keys)
        return places >> _SAMPLE_BITS, places & ((1 << _SAMPLE_BITS) - 1)

    def kept(self, segment: int) -> KeptRows:
        """The labels of a segment, which counts as used."""
        self._segments.move_to_end(segment)
        return self._segments[segment].kept()

    def put(self, labels: KeptRows) -> tuple[int, list[Segment]]:
        """Take labels in, from the first on, as far as there is room.

        Returns:
            How many were taken, and segments that are full and not in a file: for who writes files.
        """
        sealed: list[Segment] = []
        taken = 0
        while taken < labels.samples:
            left = labels.part(taken, labels.samples)
            number = self._filling(left, sealed)
            segment = self._segments[number]
            fitting = segment.room_for(left)
            if not fitting:
                self._seal(number, sealed)
                continue
            part = left.part(0, fitting)
            if not self._shrink(part.nbytes, fitting):
                break
            first = segment.add(part)
            self.held_bytes += part.nbytes if part.ends is None else part.nbytes - 8
            places = np.arange(first, first + fitting) | (number << _SAMPLE_BITS)
            self._index.put(part.keys, places)
            taken += fitting
        return taken, sealed

    def withdraw(self, keys: Keys) -> None:
        """Find these no more, and let them get into no file."""
        numbers, samples = self.find(keys)
        for number in np.unique(numbers[numbers >= 0]).tolist():
            self._segments[number].withdraw(samples[numbers == number])
        self._index.remove(keys)

    def all(self) -> Iterator[tuple[KeptRows, Numbers]]:
        """All labels of which there is no file, with those of the samples that a key leads to."""
        for number, segment in list(self._segments.items()):
            if not (segment.saved and self.files):
                kept = segment.kept()
                places = np.arange(kept.samples) | (number << _SAMPLE_BITS)
                yield kept, np.flatnonzero(self._index.find(kept.keys) == places)

    def seal(self) -> list[Segment]:
        """Close what is being filled; segments for who writes files."""
        sealed: list[Segment] = []
        for number in list(self._open):
            self._seal(number, sealed)
        return sealed

    def resize(self, most_bytes: int) -> None:
        """Another bound from now on; what can go above it goes at once."""
        self.most_bytes = most_bytes
        self.segment_bytes = min(self._largest, most_bytes // _SEGMENTS)
        self._shrink(0, 0)

    def _filling(self, labels: KeptRows, sealed: list[Segment]) -> int:
        """The number of a segment for such labels that is not sealed."""
        for number in reversed(self._open):
            if self._segments[number].takes(labels):
                self._open.remove(number)
                self._open.append(number)
                self._segments.move_to_end(number)
                return number
        if len(self._open) >= _MOST_OPEN:
            self._seal(self._open[0], sealed)
        number, self._next = self._next, self._next + 1
        self._segments[number] = Segment(labels, self.segment_bytes)
        self._open.append(number)
        return number

    def _seal(self, number: int, sealed: list[Segment]) -> None:
        self._open.remove(number)
        segment = self._segments[number]
        segment.close()
        if not segment.samples:
            del self._segments[number]
        elif self.files:
            sealed.append(segment)
        else:
            segment.saved = True

    def _shrink(self, more_bytes: int, more_keys: int) -> bool:
        """Let go of segments until so much more fits; whether it does."""
        while self.held_bytes + more_bytes + self._index.nbytes_with(more_keys) > self.most_bytes:
            oldest = next((number for number, segment in self._segments.items() if segment.saved), None)
            if oldest is None:
                return False
            self._evict(oldest)
        return True

    def _evict(self, number: int) -> None:
        segment = self._segments.pop(number)
        self.held_bytes -= segment.nbytes
        self.evicted += segment.samples
        self._index.drop(number << _SAMPLE_BITS, (number + 1) << _SAMPLE_BITS)
