"""What a batch holds in memory is counted once, whatever it is made of."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.held_bytes import held_bytes
from edldist.student.loop.reading import ReadAhead

Pair = namedtuple("Pair", "x y")
X = torch.zeros(10, 3)  # 120 bytes
A = np.zeros((5, 2), np.int64)  # 80 bytes
DATA_SET = torch.zeros(1000, 3)


@dataclass
class Sample:
    x: torch.Tensor
    rest: object = None


@pytest.mark.parametrize(
    ("value", "nbytes"),
    [
        (X, 120),
        (A, 80),
        ({"x": X, "a": [A, ("text", 3, None)]}, 200),
        (Pair(X, A), 200),
        (UserDict({"x": X}), 120),
        (Sample(X, {"more": A}), 200),
        ({1, 2, "text"}, 0),
        ([b"12345", bytearray(7), memoryview(b"12")], 14),
        (X.T, 120),
        (X.to(torch.float16), 60),
        ([X, X, X.view(30), X[2:4]], 120),
        ([X[:4], X[4:8]], 96),
        (DATA_SET[:10], 120),
        (DATA_SET.expand(7, 1000, 3), 12_000),
        ([A, A[1:], A.T], 80),
        (A[1:3], 32),
        (np.broadcast_to(A, (9, 5, 2)), 80),
        ([torch.from_numpy(A), A], 80),
        (torch.zeros(0, 4), 0),
        (torch.eye(3).to_sparse(), 36),
        (pack_sequence([torch.zeros(3), torch.zeros(2)]), 20 + 24),
        (Sample, 0),
        (object(), 0),
    ],
)
def test_tensors_and_arrays_count_wherever_they_are(value, nbytes):
    assert held_bytes(value) == nbytes


def test_a_structure_that_contains_itself_ends():
    loop: list = [X]
    loop.append(loop)
    assert held_bytes(loop) == 120


def test_a_batch_holds_what_the_loop_gets_and_what_teachers_see():
    index = torch.arange(10)
    assert OpenBatch({"x": X, "index": index}, {"index": index}, 10).nbytes == 120 + 80
    assert OpenBatch({"x": X}, {"twice": X * 2}, 10).nbytes == 240, "made for the teacher"
    assert OpenBatch({"x": X.T}, {"x": X.T}, 3).nbytes == 240, "copied, to be cut by samples"
    assert OpenBatch([X], {"x": X}, 10).nbytes == 120


class Own:
    """An image beside its id, in an object of a script's own class."""

    def __init__(self) -> None:
        self.id = torch.arange(4)
        self.image = torch.zeros(4, 256)


class Slotted:
    __slots__ = ("id", "image")

    def __init__(self) -> None:
        self.id = torch.arange(4)
        self.image = torch.zeros(4, 256)


class Lasting(Own):
    """Nobody knows how to make another one, so it is passed on as it is."""

    def __del__(self) -> None:
        pass


@pytest.mark.parametrize("kind", [Own, Slotted, Lasting])
@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_what_hangs_on_an_object_of_a_batch_counts_as_it_is_read(kind, copied, inside):
    def batches():
        for _ in range(3):
            pair = kind()
            yield {"pair": pair} if inside else pair

    read: list[OpenBatch] = []
    ahead = ReadAhead(
        batches(), lambda batch: {"id": (batch["pair"] if inside else batch).id}, copy_batches=copied
    )
    if not ahead.begin():
        ahead.start()
    ahead.fill(lambda: len(read) < 3, read.append)
    assert [batch.nbytes for batch in read] == 3 * [4 * 8 + 4 * 256 * 4]
