"""Many small tensors a batch, from worker processes, at the usual limit of 1,024 file descriptors."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from edldist.errors import InputError
from edldist.student.memory.descriptors import explained, keep_few
from edldist.student.memory.leaves import leaves

pytestmark = pytest.mark.timeout(240)

SCRIPT = """
import json, os, resource, sys, warnings
warnings.filterwarnings("ignore", message="This process .* is multi-threaded")
import torch
from torch.utils.data import DataLoader, Dataset
from edldist.wire.memory import MemoryTransport
from tests.harness import local_job

tensors, size, limit, plain = (int(word) for word in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

class Many(Dataset):
    def __len__(self):
        return 120
    def __getitem__(self, index):
        return {"id": torch.tensor(index)} | {str(n): torch.full((size,), n + index) for n in range(tensors)}

def descriptors():
    return len(os.listdir("/proc/self/fd"))

peak = 0
def consume(batches):
    global peak
    seen = []
    for batch in batches:
        peak = max(peak, descriptors())
        assert all(batch[str(n)][:, 0].tolist() == (batch["id"] + n).tolist() for n in range(tensors))
        seen += batch["id"].tolist()
    assert seen == list(range(120))

data = DataLoader(Many(), batch_size=4, num_workers=2)
if plain:
    consume(data)
else:
    with local_job(MemoryTransport()) as job:
        job.teacher(batch_size=4)
        consume(batch for batch, labels in job.loader(data, inputs="id", high_watermark=32, low_watermark=16))
print(json.dumps(peak))
"""


def peak(tensors: int, size: int, limit: int, plain: bool = False) -> int:
    """Most descriptors of a loop over batches of so many tensors of so many numbers a sample."""
    words = [str(int(word)) for word in (tensors, size, limit, plain)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_many_small_tensors_take_hardly_more_descriptors_than_in_a_plain_loop():
    plain = peak(100, 3, limit=1024, plain=True)
    assert plain > 100
    assert peak(100, 3, limit=1024) < plain + 200


@pytest.mark.slow
def test_large_tensors_take_no_more_than_their_share_of_descriptors():
    prefetched = 2 * 2 * 20  # batches that the workers have made, and that are not read yet
    assert 1024 // 4 < peak(20, 8192, limit=1024) < 1024 // 4 + prefetched + 200


def shared(nbytes: int) -> torch.Tensor:
    return torch.zeros(nbytes, dtype=torch.uint8).share_memory_()


def test_small_tensors_are_copied_and_large_ones_stay_as_long_as_there_is_room():
    large, small, own = shared(1 << 20), shared(100), torch.zeros(3)
    batch = {"large": large, "small": [small, own], "view": large[:3], "name": ["text"] * 3}
    made, descriptors = keep_few(batch, leaves(batch), held=lambda: 0)
    assert descriptors == 1
    assert made["large"] is large and made["small"][1] is own
    assert not made["small"][0].is_shared() and not made["view"].is_shared()
    assert small.is_shared() and batch["small"][0] is small  # somebody else's, perhaps
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    made, descriptors = keep_few(batch, leaves(batch), held=lambda: limit // 4)
    assert descriptors == 0 and not made["large"].is_shared()
    assert made["large"].equal(large)


def test_a_batch_without_shared_memory_is_passed_on_as_it_is():
    batch = {"x": torch.zeros(3), "deep": [(torch.zeros(2), "text")]}
    assert keep_few(batch, leaves(batch), held=lambda: 10**6) == (batch, 0)
    assert keep_few(batch, leaves(batch), held=lambda: 10**6)[0] is batch


class Hungry(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    "error", [RuntimeError("received 0 items of ancdata"), OSError(errno.EMFILE, "Too many open files")]
)
def test_running_out_of_descriptors_is_explained(error):
    said = explained(error)
    assert isinstance(said, InputError) and said.__cause__ is error
    assert "RLIMIT_NOFILE is" in str(said) and "ulimit -n" in str(said) and "file_system" in str(said)


def test_other_errors_of_a_data_loader_stay_what_they_are():
    error = FileNotFoundError(errno.ENOENT, "no such file")
    assert explained(error) is error


def test_the_loop_gets_the_explanation(memory_job):
    memory_job.teacher()
    with pytest.raises(InputError, match="no file descriptor left"):
        next(iter(memory_job.loader(DataLoader(Hungry(), batch_size=2))))
