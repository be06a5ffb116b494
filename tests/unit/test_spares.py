"""Memory of frames comes back when nobody refers to them, and not before."""

from __future__ import annotations

import gc

import numpy as np
import torch

from edldist.wire.spares import Spares


def place(frame: memoryview) -> int:
    return int(np.frombuffer(frame, np.uint8).ctypes.data)


def test_a_block_is_used_again_once_its_frame_is_gone() -> None:
    spares = Spares()
    frame = spares.take(1 << 20)
    first = place(frame)
    held = torch.frombuffer(frame, dtype=torch.uint8)[10:]
    del frame
    assert len(spares) == 0, "a tensor still lies in it"
    del held
    gc.collect()
    assert len(spares) == 1
    assert place(spares.take(1 << 20)) == first


def test_two_frames_never_share_memory() -> None:
    spares = Spares()
    frames = [spares.take(100_000) for _ in range(3)]
    for number, frame in enumerate(frames):
        frame[:] = bytes([number]) * len(frame)
    assert [set(frame.tobytes()) for frame in frames] == [{0}, {1}, {2}]


def test_a_block_that_is_too_small_or_far_too_large_stays_where_it_is() -> None:
    spares = Spares()
    spares.take(1000)
    assert len(spares) == 1
    larger, smaller = spares.take(1001), spares.take(10)
    assert len(spares) == 1 and (len(larger), len(smaller)) == (1001, 10)
    fitting = spares.take(600)
    assert len(fitting) == 600
    assert len(spares) == 0


def test_what_is_kept_is_bounded() -> None:
    spares = Spares()
    frames = [spares.take(1000 + number) for number in range(20)]
    frames.clear()
    assert 0 < len(spares) <= 4
