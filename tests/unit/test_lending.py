"""Tensors in shared memory are found where they lie, and left there."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from edldist.wire.shm.lending import Lent, lend
from edldist.wire.shm.memfile import open_file
from edldist.wire.tensors import as_bytes

SAMPLES, FEATURES = 64, 4096


class Numbered(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((FEATURES,), index, dtype=torch.int16)


def content(lent: Lent | None, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as another process finds it."""
    assert lent is not None
    fd, size = open_file(lent.address, sealed=False, writable=False)
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapping:
        os.close(fd)
        raw = bytearray(mapping[lent.offset : lent.offset + tensor.nbytes])
    return torch.frombuffer(raw, dtype=tensor.dtype).reshape(tensor.shape)


def test_a_shared_tensor_is_found_and_not_moved() -> None:
    tensor = torch.arange(100_000, dtype=torch.float32).share_memory_()
    where = tensor.data_ptr()
    assert torch.equal(content(lend(tensor), tensor), tensor)
    assert tensor.data_ptr() == where


def test_a_slice_is_found_at_its_offset() -> None:
    whole = torch.arange(400_000, dtype=torch.int32).reshape(100, -1).share_memory_()
    part = whole[30:90]
    assert torch.equal(content(lend(part), part), part)


def test_batches_of_data_loader_workers_are_found() -> None:
    batches = list(DataLoader(Numbered(), batch_size=32, num_workers=1))
    for number, batch in enumerate(batches):
        where = batch.data_ptr()
        assert torch.equal(content(lend(batch), batch), batch)
        assert batch.data_ptr() == where and int(batch[0, 0]) == 32 * number


_FILE_SYSTEM = """
import os, torch, torch.multiprocessing
from torch.utils.data import DataLoader
from tests.unit.test_lending import Numbered, content, lend
torch.multiprocessing.set_sharing_strategy("file_system")
for batch in DataLoader(Numbered(), batch_size=32, num_workers=1):
    where, before = batch.data_ptr(), len(os.listdir("/proc/self/fd"))
    lent = lend(batch)
    assert torch.equal(content(lent, batch), batch)
    assert batch.data_ptr() == where
    del lent
    assert len(os.listdir("/proc/self/fd")) == before
print("found")
"""


def test_batches_with_names_in_the_file_system_are_found() -> None:
    """The strategy is one of the whole process, so the test has its own."""
    root = str(Path(__file__).resolve().parents[2])
    run = subprocess.run([sys.executable, "-c", _FILE_SYSTEM], cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == "found", run.stderr


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: torch.zeros(100_000), id="ordinary memory"),
        pytest.param(lambda path: torch.zeros(100).share_memory_(), id="small"),
        pytest.param(lambda path: torch.zeros(400, 300).share_memory_().t(), id="not contiguous"),
        pytest.param(
            lambda path: torch.from_file(str(path), shared=True, size=100_000, dtype=torch.uint8), id="a file"
        ),
        pytest.param(lambda path: torch.zeros(0).share_memory_(), id="empty"),
        pytest.param(lambda path: torch.zeros(300, 300, device="meta"), id="no data"),
        pytest.param(lambda path: torch.eye(300).to_sparse(), id="sparse"),
    ],
)
def test_other_tensors_are_not_lent(make, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(100_000))
    assert lend(make(tmp_path / "data")) is None


def test_the_bytes_that_travel_by_socket_are_those_that_are_lent() -> None:
    tensor = torch.randint(0, 255, (1000, 100), dtype=torch.uint8).share_memory_()
    lent = lend(tensor)
    assert bytes(as_bytes(tensor)) == bytes(as_bytes(content(lent, tensor)))
