"""What a checkpoint's file of whole tensors holds, and what it costs to use."""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from edldist.checkpoint import tensorfile
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.tensorfile import TENSORS_FILE, keys_of, read_tensors, write_tensors
from edldist.errors import CheckpointError
from edldist.observe import reporter


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(reporter, "event", lambda name, **fields: None)
    for name in ("EDLDIST_JOB", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


class Box:
    def __init__(self, value=None):
        self.value = value

    def state_dict(self):
        return self.value

    def load_state_dict(self, state):
        self.value = state


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).tolist()


# All but torch's shells without operations, as torch.uint3 and torch.bits8.
DTYPES = {
    dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
    and re.fullmatch(r"torch\.(bool|u?int\d{1,2}|float8.*|b?float\d\d|complex\d+)", str(dtype))
    and not re.fullmatch(r"torch\.u?int[1-7]", str(dtype))
}


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("dtype", sorted(DTYPES, key=str), ids=str)
def test_every_dtype_and_shape_comes_back_bit_for_bit(tmp_path, dtype):
    raw = torch.randint(0, 2, (3 * 5 * dtype.itemsize,), dtype=torch.uint8)
    if dtype is not torch.bool:
        raw = raw * 37 + 5
    full = raw.view(dtype).view(3, 5)
    value = {
        "odd bytes": torch.ones(3, dtype=torch.uint8),  # so that what follows is not aligned
        "matrix": full,
        "scalar": full[1, 2],
        "empty": full[:0],
        "transposed": full.t(),
        "strided": full[:, ::2],
        "expanded": full[:1].expand(4, 5),
        "tied": [full, full],
    }
    other = Box()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"box": Box(value)}, wait=True)
        assert checkpointer.last_error is None
        assert checkpointer.restore({"box": other}) == 1
    got = other.value
    for key, want in value.items():
        pairs = zip(got[key], want, strict=True) if key == "tied" else [(got[key], want)]
        for one, two in pairs:
            assert (one.dtype, one.shape, bits(one)) == (two.dtype, two.shape, bits(two)), key


def test_lazily_conjugated_and_negated_tensors_are_written_as_what_they_show(tmp_path):
    value = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex128)
    shown = {"conjugated": value.conj(), "negated": value.conj().imag}
    write_tensors(tmp_path / "file", shown)
    got = {key: torch.empty(2, dtype=tensor.dtype) for key, tensor in shown.items()}
    read_tensors(tmp_path / "file", got)
    assert got["conjugated"].tolist() == [1 - 2j, 3 + 4j] and got["negated"].tolist() == [-2.0, 4.0]


def test_tied_weights_stay_tied(tmp_path):
    def made():
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    model, other = made(), made()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)
        checkpointer.restore({"model": other})
    assert other[1].weight is other[0].weight and torch.equal(other[0].weight, model[0].weight)


def test_restored_tensors_are_no_view_of_the_file(tmp_path):
    other = Box()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"box": Box({"t": torch.arange(10_000.0)})}, wait=True)
        checkpointer.restore({"box": other})
        os.truncate(tmp_path / "step-00000001" / TENSORS_FILE, 0)
    assert torch.equal(other.value["t"], torch.arange(10_000.0))


def test_a_replicated_state_lies_in_files_that_execute_nothing(tmp_path):
    model = nn.Linear(3, 2)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)
    folder = tmp_path / "step-00000001"
    assert sorted(os.listdir(folder)) == [
        *("COMMITTED", "manifest.json", "rng-00000.json", "state.json", "tensors.safetensors"),
    ]
    for file in ("manifest.json", "rng-00000.json", "state.json"):
        json.loads((folder / file).read_text())
    with safe_open(str(folder / TENSORS_FILE), "pt") as file:  # any program reads it
        assert torch.equal(file.get_tensor("model/weight"), model.weight)


IMPORTS = """
import sys, torch
import edldist
model = torch.nn.Linear(2, 2)
edldist.ElasticSampler, edldist.DistillLoader
with edldist.Checkpointer(sys.argv[1]) as checkpointer:
    checkpointer.save(1, {"model": model}, wait=True)
    assert checkpointer.restore({"model": model}) == 1
heavy = {"torch.distributed.checkpoint", "torch.distributed.tensor", "torch._dynamo", "sympy", "pydantic"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_a_replicated_state_imports_nothing_heavy(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    command = [sys.executable, "-c", IMPORTS, str(tmp_path)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "[]\n"


def rewrite_manifest(folder, edit):
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "COMMITTED").write_text(hashlib.sha256(text).hexdigest() + "\n")


@pytest.mark.parametrize("number", [0, 2])
def test_another_format_is_refused_by_its_number(tmp_path, number):
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": nn.Linear(1, 1)}, wait=True)
        rewrite_manifest(tmp_path / "step-00000001", lambda manifest: manifest.update(format=number))
        with pytest.raises(CheckpointError, match=rf"its format is {number}; .* reads format 1"):
            checkpointer.restore({"model": nn.Linear(1, 1)})


def test_a_manifest_of_the_right_hash_that_is_none_is_damage(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"model": nn.Linear(1, 1)}, wait=True)
        rewrite_manifest(tmp_path / "step-00000002", lambda manifest: manifest.pop("files"))
        assert checkpointer.restore({"model": nn.Linear(1, 1)}) == 1
        rewrite_manifest(tmp_path / "step-00000001", lambda manifest: manifest.update(step="one"))
        with pytest.raises(CheckpointError, match="manifest.json cannot be read: .*step"):
            checkpointer.restore({"model": nn.Linear(1, 1)})


def test_a_name_that_the_file_reserves_is_refused(tmp_path):
    with Checkpointer(tmp_path) as checkpointer, pytest.raises(CheckpointError, match="__metadata__"):
        checkpointer.save(1, {"__metadata__": Box(torch.ones(1))})


def test_a_failing_disk_shows_the_systems_own_error(tmp_path):
    with pytest.raises(OSError) as caught:
        write_tensors(tmp_path / "missing" / "file", {"a": torch.ones(3)})
    assert caught.value.errno == errno.ENOENT and caught.value.filename.endswith("file")


def test_what_else_the_library_refuses_is_no_error_of_the_system(tmp_path, monkeypatch):
    def refuse(*_):
        raise SafetensorError("Error while serializing: HeaderTooLarge")

    monkeypatch.setattr(tensorfile, "save_file", refuse)
    with pytest.raises(SafetensorError, match="HeaderTooLarge"):
        write_tensors(tmp_path / "file", {"a": torch.ones(3)})


def test_a_file_that_lacks_a_tensor_or_holds_another_size_is_refused(tmp_path):
    path = tmp_path / "file"
    write_tensors(path, {"a": torch.ones(3)})
    assert keys_of(path) == ["a"]
    with pytest.raises(CheckpointError, match="lacks the tensor b"):
        read_tensors(path, {"b": torch.ones(3)})
    with pytest.raises(CheckpointError, match="3 elements of a instead of 4"):
        read_tensors(path, {"a": torch.ones(4)})
