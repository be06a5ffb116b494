"""Random numbers of the data loader's own, apart from those of the training loop."""

from __future__ import annotations

import _random
import contextlib
import ctypes
import random
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

__all__ = ["DataDraws", "splitmix64"]

_MASK_64 = (1 << 64) - 1
_MASK_32 = (1 << 32) - 1
_MT19937_BYTES = 625 * 4  # numpy's struct: 624 words and a position


class DataDraws:
    """Lets a data loader draw from the global generators without the training loop noticing.

    An order (``shuffle=True``), an augmentation, the base seed of worker processes: a data loader that is
    read in the training thread draws them from the generators that the loop draws its dropout from. How
    far it has been read when the loop draws is a matter of timing, and of what a restart read again. So
    reading has numbers of its own, a function of (seed, epoch, place) whenever it takes place, and finds
    the generators of the loop as it left them: torch's for the CPU and for the current CUDA device, Python's
    ``random`` and numpy's global one.

    Generators that a script made itself are its own: these draws stay where they are. Owned by the
    trainer's thread.
    """

    def __init__(self) -> None:
        self._seed: int | None = None
        self._epoch: tuple[int, int] | None = None  # the epoch that was read last, and its seed
        self._generators: list[torch.Generator] = []  # while reading
        self._python = _PythonDraws()
        self._numpy = _NumpyDraws()

    def begin(self) -> None:
        """An epoch begins; the first one takes the seed: ``torch.initial_seed()``, which draws nothing."""
        if self._seed is None:
            self._seed = torch.initial_seed() & _MASK_64
        self._numpy.doubt()

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """What is drawn inside comes from the data loader's numbers (see ``reseed``)."""
        generators = self._generators = _torch_generators()
        states = [generator.get_state() for generator in generators]
        with self._python.apart(), self._numpy.apart():
            try:
                yield
            finally:
                for generator, kept in zip(generators, states, strict=True):
                    generator.set_state(kept)

    def reseed(self, epoch: int, place: int) -> None:
        """Go to the numbers of one place, inside ``apart``: what follows depends on it and the seed alone.

        Args:
            epoch: the epoch that is read.
            place: where in it; any integer.
        """
        assert self._seed is not None
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, splitmix64(splitmix64(self._seed) + epoch)
        bits = splitmix64(self._epoch[1] + place)
        random.seed(bits)
        # Torch and numpy make the same numbers of the same 32 bits: each gets a half of its own.
        np.random.seed(bits >> 32)
        for generator in self._generators:
            generator.manual_seed(bits & _MASK_32)


class _PythonDraws:
    """Puts the state of ``random``'s own generator back.

    To ask for it makes 625 numbers, which takes longer than all else that is done to read a small batch.
    In CPython it lies in 625 words behind the object's header; where a look at both says no, it is asked for.
    """

    def __init__(self) -> None:
        self._generator = getattr(random.getstate, "__self__", None)
        self._words = _words_of(self._generator)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        generator, words = self._generator, self._words
        if generator is None or words is None:
            state = random.getstate()
            try:
                yield
            finally:
                random.setstate(state)
            return
        kept, gauss = words.raw, generator.gauss_next
        try:
            yield
        finally:
            words.raw = kept
            generator.gauss_next = gauss


def _words_of(generator: Any) -> ctypes.Array[ctypes.c_char] | None:
    """The memory of a generator's state: its position, then 624 words; None if it is not there."""
    base = _random.Random
    if type(generator) is not random.Random or base.__basicsize__ < object.__basicsize__ + _MT19937_BYTES:
        return None
    words = (ctypes.c_char * _MT19937_BYTES).from_address(id(generator) + object.__basicsize__)
    *state, position = generator.getstate()[1]
    return words if words.raw == struct.pack("=625I", position, *state) else None


class _NumpyDraws:
    """Swaps numpy's global bit generator.

    The global ``RandomState`` keeps the second of a pair of normal numbers for the next call, and forgets
    it in a swap, so that one has to be kept here. Reading it costs as much as all the rest: it is
    read only if numbers were drawn since it was last known that none is kept.
    """

    def __init__(self) -> None:
        self._own = np.random.MT19937(0)
        self._without: bytes | None = None  # the bits with which none was kept

    def doubt(self) -> None:
        """The state may have been put back to an earlier one."""
        self._without = None

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        bits: Any = get_bit_generator()
        raw = _raw(bits)
        kept: Any = None
        if raw is None or raw != self._without:
            kept = np.random.get_state(legacy=False)
            self._without = None if kept["has_gauss"] else raw
        set_bit_generator(self._own)
        try:
            yield
        finally:
            set_bit_generator(bits)
            if kept is not None and kept["has_gauss"]:
                np.random.set_state(kept)


def _raw(bits: Any) -> bytes | None:
    """The bits of an MT19937, numpy's global one unless a script replaced it."""
    if type(bits) is not np.random.MT19937:
        return None
    return ctypes.string_at(bits.ctypes.state_address, _MT19937_BYTES)


def _torch_generators() -> list[torch.Generator]:
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    return generators


def splitmix64(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators",
    2014): spreads every bit of 64 over all of them."""
    value = (value + 0x9E37_79B9_7F4A_7C15) & _MASK_64
    value = ((value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK_64
    value = ((value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK_64
    return value ^ (value >> 31)
