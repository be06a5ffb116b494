"""Where the labels of a key lie: a hash table in numpy, asked for a whole batch at a time. Pure.

It knows the first 64 bits of a key only. Who follows it compares the whole key with the one that is kept; of
two keys with the same 64 bits the later one is found, and the other is a miss.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edldist.store.sample_key import Keys

__all__ = ["NOWHERE", "KeyIndex"]

NOWHERE = -1
"""Of a key that is not there."""

_FREE, _GONE = -1, -2
_LEAST = 1 << 10

Places = NDArray[np.int64]


class KeyIndex:
    """An open hash table from keys to places, numbers from 0 on, with linear probing.

    Invariant: from a key's own slot to where it lies no slot is free, so that a search may end at a free one.

    Attributes:
        keys: how many it holds.
    """

    def __init__(self) -> None:
        self.keys = 0
        self._taken = 0  # slots that are not free: keys, and those that are gone
        self._prefixes = np.zeros(_LEAST, np.uint64)
        self._places = np.full(_LEAST, _FREE, np.int64)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes: 48 to 96 for each key, once there are some, and as many as it had at most."""
        return self._prefixes.nbytes + self._places.nbytes

    def nbytes_with(self, more: int) -> int:
        """Memory that it has once so many keys more are in it, in bytes."""
        if 2 * (self._taken + more) <= len(self._places):
            return self.nbytes
        return 16 * _size_for(self.keys + more)

    def find(self, keys: Keys) -> Places:
        """The place of each key, or ``NOWHERE``: int64 [n]."""
        prefixes = _prefixes(keys)
        found = np.full(len(prefixes), NOWHERE, np.int64)
        if not self.keys:
            return found
        mask = np.uint64(len(self._places) - 1)
        slots = (prefixes & mask).astype(np.int64)
        asked = np.arange(len(prefixes))
        while asked.size:
            places = self._places[slots]
            here = (self._prefixes[slots] == prefixes[asked]) & (places >= 0)
            found[asked[here]] = places[here]
            on = ~here & (places != _FREE)
            asked = asked[on]
            slots = (slots[on] + 1) & int(mask)
        return found

    def put(self, keys: Keys, places: Places) -> None:
        """Remember places of keys; a key that is known moves to its new place."""
        self._make_room(len(places))
        self._insert(_prefixes(keys), places)

    def drop(self, first: int, stop: int) -> None:
        """Forget the keys that lie at places from ``first`` on, before ``stop``."""
        self._let_go((self._places >= first) & (self._places < stop))

    def remove(self, keys: Keys) -> None:
        """Forget keys, wherever they lie; looks at all of the table."""
        places = self.find(keys)
        self._let_go(np.isin(self._places, places[places != NOWHERE]))

    def _let_go(self, slots: NDArray[np.bool_]) -> None:
        self._places[slots] = _GONE
        self.keys -= int(slots.sum())
        if self._taken > 2 * self.keys + _LEAST:
            self._rebuild(self.keys)

    def _make_room(self, more: int) -> None:
        if 2 * (self._taken + more) > len(self._places):
            self._rebuild(self.keys + more)

    def _rebuild(self, keys: int) -> None:
        """Room for so many keys, and no slot of one that is gone."""
        size = _size_for(keys)
        live = self._places >= 0
        prefixes, places = self._prefixes[live], self._places[live]
        self._prefixes = np.zeros(size, np.uint64)
        self._places = np.full(size, _FREE, np.int64)
        self.keys = self._taken = 0
        self._insert(prefixes, places)

    def _insert(self, prefixes: NDArray[np.uint64], places: Places) -> None:
        mask = len(self._places) - 1
        slots = (prefixes & np.uint64(mask)).astype(np.int64)
        left = np.arange(len(prefixes))
        while left.size:
            there = self._places[slots]
            known = (there >= 0) & (self._prefixes[slots] == prefixes[left])
            self._places[slots[known]] = places[left[known]]
            free = there == _FREE
            # Where several want one slot the last of them gets it, in both arrays.
            self._prefixes[slots[free]] = prefixes[left[free]]
            self._places[slots[free]] = places[left[free]]
            new = len(np.unique(slots[free]))
            self.keys += new
            self._taken += new
            on = ~known & ~(free & (self._prefixes[slots] == prefixes[left]))
            left = left[on]
            slots = (slots[on] + 1) & mask


def _size_for(keys: int) -> int:
    """Slots for so many keys: from 3 to 6 of each."""
    return max(_LEAST, 1 << (3 * keys).bit_length())


def _prefixes(keys: Keys) -> NDArray[np.uint64]:
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64).ravel()
