"""Batches reach the device in their order, one ahead, in the structure that the data loader gave them."""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from edldist.errors import ConfigError
from edldist.student.memory import to_device as module
from edldist.student.memory.structure import mapped
from edldist.student.memory.to_device import (
    Copies,
    CudaCopier,
    DeviceTransfer,
    HostCopier,
    LeftBehind,
    copier_for,
)

Pair = namedtuple("Pair", "x y")
X, Y = torch.arange(3), torch.ones(2, 2)


class FakeCopier:
    """Copies by adding 100, and writes down what it is asked."""

    ahead = True
    allocate = None

    def __init__(self) -> None:
        self.log: list[tuple[str, int]] = []

    def begin(self, value):
        self.log.append(("begin", value))
        return Copies(value + 100, [], value)

    def end(self, copies):
        self.log.append(("end", copies.done))
        return copies.value


@dataclasses.dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    name: str
    deep: list

    def __post_init__(self) -> None:
        assert self.name == "made once"
        object.__setattr__(self, "name", "made")


class Named(UserDict):
    """A batch with something beside its entries."""

    note = ""


def flat(value) -> list:
    """Types and leaves, in order."""
    if isinstance(value, torch.Tensor):
        return [value.tolist()]
    kind = [type(value).__name__]
    if isinstance(value, (dict, UserDict, MappingProxyType)):
        return kind + [part for key in value for part in (key, *flat(value[key]))]
    if isinstance(value, (tuple, list)):
        return kind + [part for item in value for part in flat(item)]
    if dataclasses.is_dataclass(value):
        return kind + [
            part for field in dataclasses.fields(value) for part in flat(getattr(value, field.name))
        ]
    return [*kind, value]


STRUCTURES = [
    lambda: X,
    lambda: {"x": X, "name": "text", "deep": [{"y": (Y, None)}]},
    lambda: (X, [Y, 3], "text"),
    lambda: Pair(X, {"y": Y}),
    lambda: OrderedDict(x=X, y=Y),
    lambda: defaultdict(list, x=X),
    lambda: UserDict({"x": X, "y": [Y]}),
    lambda: MappingProxyType({"x": X}),
    lambda: Sample(X, "made once", [Y]),
    lambda: [None, 1.5, b"bytes", {1, 2}],
    lambda: (),
]


@pytest.mark.parametrize("make", STRUCTURES)
def test_every_tensor_of_a_structure_is_reached_and_the_rest_stays(make):
    value = make()
    before = flat(value)
    seen: list[torch.Tensor] = []

    def double(tensor):
        seen.append(tensor)
        return tensor * 2

    out = mapped(value, double)
    assert flat(value) == before
    assert type(out) is type(value)
    expected = mapped(make(), lambda tensor: tensor * 2)
    assert flat(out) == flat(expected)
    assert flat(mapped(value, lambda tensor: tensor)) == before
    assert len(seen) == sum(isinstance(part, list) for part in before)


def test_a_mapping_keeps_what_it_carries_beside_its_entries():
    value = Named({"x": X})
    value.note = "kept"
    made = mapped(value, lambda tensor: tensor + 1)
    assert made.note == "kept" and value["x"] is X
    counted = mapped(defaultdict(list, x=X), lambda tensor: tensor)
    assert counted["missing"] == []


@pytest.mark.parametrize("lengths", [(3, 2), (2, 3)], ids=["sorted", "unsorted"])
def test_packed_sequences_are_brought_over_but_for_the_sizes_that_stay_on_the_host(lengths):
    packed = pack_sequence([torch.randn(n, 4) for n in lengths], enforce_sorted=lengths == (3, 2))
    sent = []

    def elsewhere(tensor):
        sent.append(tensor)
        return tensor.to("meta")

    out = mapped({"words": packed}, elsewhere)["words"]
    assert type(out) is PackedSequence and out.batch_sizes is packed.batch_sizes
    there = [out.data, out.sorted_indices, out.unsorted_indices]
    here = [packed.data, packed.sorted_indices, packed.unsorted_indices]
    assert [tensor.device.type for tensor in there if tensor is not None] == ["meta"] * len(sent)
    assert [tensor is None for tensor in there] == [tensor is None for tensor in here]
    assert len(sent) == (1 if lengths == (3, 2) else 3)


def test_one_batch_is_ahead_and_the_order_is_kept():
    copier = FakeCopier()
    transfer = DeviceTransfer(copier)
    got = []
    transfer.put("a", 0)
    for number, tag in enumerate("bcd", 1):
        got.append(transfer.take())
        assert transfer.wants
        transfer.put(tag, number)
        assert not transfer.wants  # no more than one
    got.append(transfer.take())
    assert got == [("a", 100), ("b", 101), ("c", 102), ("d", 103)]
    assert copier.log == [
        ("begin", 0),
        *(step for n in range(3) for step in (("end", n), ("begin", n + 1))),
        ("end", 3),
    ]
    assert not transfer


def test_what_is_forgotten_is_never_waited_for():
    copier = FakeCopier()
    transfer = DeviceTransfer(copier)
    transfer.put("a", 0)
    transfer.clear()
    assert not transfer and copier.log == [("begin", 0)]


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_on_the_host_nothing_is_copied_or_taken_ahead(device):
    transfer = DeviceTransfer(copier_for(device, None))
    batch = {"x": X}
    assert not transfer.wants
    transfer.put(None, batch)
    assert transfer.take()[1] is batch
    assert isinstance(copier_for(device, False), HostCopier)
    assert copier_for(device, None).allocate is None


def test_labels_are_placed_in_pinned_memory_where_a_script_asks_for_it(monkeypatch):
    made = []
    real = torch.empty

    def empty(shape, *, dtype, device, pin_memory):
        made.append(pin_memory)
        return real(shape, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "empty", empty)
    allocate = HostCopier(pinned=True).allocate
    assert allocate is not None
    assert allocate([2, 3], torch.float16).shape == (2, 3) and made == [True]


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", True, 1.5, ["cuda"]])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(ConfigError, match=r"device=.*: use None, 'cpu', 'cuda' or 'cuda:N'") as caught:
        copier_for(device, None)
    assert repr(device) in str(caught.value)


@pytest.mark.parametrize("device", ["meta", "mps"])
def test_a_device_of_another_kind_is_refused(device):
    with pytest.raises(ConfigError, match=f"device='{device}': .*CUDA devices only: use None"):
        copier_for(device, None)


@pytest.mark.parametrize(
    ("device", "count", "there"),
    [("cuda", 0, "no CUDA device"), (0, 0, "no CUDA device"), ("cuda:2", 2, "cuda:0 to cuda:1")],
)
def test_a_cuda_device_that_is_not_here_is_refused(monkeypatch, device, count, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError, match=f"device={device!r}: there is {there} here"):
        copier_for(device, None)


@pytest.mark.parametrize("pin_memory", ["yes", 1, 0.0])
def test_pin_memory_is_a_yes_or_a_no(pin_memory):
    with pytest.raises(ConfigError, match=f"pin_memory={pin_memory!r}: use True, False, or None"):
        copier_for(None, pin_memory)


def test_pinned_memory_without_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="pin_memory=True needs CUDA"):
        copier_for("cpu", True)


def test_a_cuda_device_means_pinned_memory_unless_it_is_refused(monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(module, "CudaCopier", lambda device, pinned: made.append((str(device), pinned)))
    for device, pin_memory in (("cuda", None), ("cuda:0", True), (0, False)):
        copier_for(device, pin_memory)
    assert made == [("cuda:1", True), ("cuda:0", True), ("cuda:0", False)]


cuda = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@cuda
@needs_cuda
@pytest.mark.parametrize("pin_memory", [None, True, False])
def test_structures_arrive_on_the_device(pin_memory):
    copier = copier_for("cuda", pin_memory)
    batch = {
        "x": torch.randn(64, 33),
        "deep": [torch.arange(7)],
        "name": "text",
        "there": torch.ones(2).cuda(),
    }
    out = copier.end(copier.begin(batch))
    assert out["x"].is_cuda and torch.equal(out["x"].cpu(), batch["x"])
    assert out["deep"][0].is_cuda and out["deep"][0].tolist() == list(range(7))
    assert out["there"] is batch["there"] and out["name"] == "text"
    assert (copier.allocate is None) is (pin_memory is False)
    assert copier.allocate is None or copier.allocate([3, 2], torch.bfloat16).is_pinned()


@cuda
@needs_cuda
@pytest.mark.parametrize("pin_memory", [None, True, False])
def test_packed_sequences_arrive_as_recurrent_layers_take_them(pin_memory):
    copier = copier_for("cuda", pin_memory)
    packed = pack_sequence([torch.randn(n, 4) for n in (2, 5, 3)], enforce_sorted=False)
    out = copier.end(copier.begin(packed))
    assert out.is_cuda and not out.batch_sizes.is_cuda
    output, _ = torch.nn.GRU(4, 6).cuda()(out)
    assert output.data.shape == (10, 6)
    assert torch.equal(out.cpu().data, packed.data)


@cuda
@needs_cuda
def test_a_copy_is_waited_for_by_the_loops_stream_and_its_memory_not_reused_before():
    """Every batch is read by slow kernels while the next ones are copied; sums show any mix-up."""
    transfer = DeviceTransfer(copier_for("cuda", None))
    assert isinstance(transfer._copier, CudaCopier)
    weight = torch.randn(2048, 2048, device="cuda")
    sums = []
    transfer.put(0, torch.full((4 << 20,), 0.0))
    for number in range(1, 41):
        _, here = transfer.take()
        transfer.put(number, torch.full((4 << 20,), float(number)))
        for _ in range(10):
            weight = torch.nn.functional.normalize(weight @ weight)
        sums.append(here.double().mean())
        del here
    assert [value.item() for value in sums] == [float(number) for number in range(40)]


@cuda
@needs_cuda
def test_a_copy_overlaps_the_loops_kernels():
    copier = copier_for("cuda", None)
    source = copier.allocate([64 << 20], torch.uint8)
    weight = torch.randn(8192, 8192, device="cuda")
    torch.cuda.synchronize()
    busy = torch.cuda.Event()
    for _ in range(20):
        weight = weight @ weight
    busy.record()
    copies = copier.begin(source)
    copies.done.synchronize()
    assert not busy.query()  # the copy was over before the kernels that were queued first


def test_tensors_that_nobody_looks_for_are_said_to_stay_where_they_are(caplog):
    left_behind = LeftBehind(torch.device("cuda", 1))
    odd = SimpleNamespace(x=X, name="n")
    for _ in range(3):
        batch = {"odd": odd, "array": np.zeros(3), "range": range(3), "pair": Pair(X, "text")}
        made = mapped(batch, lambda tensor: tensor + 1, left_behind)
        assert made["odd"] is odd and made["pair"].x.tolist() == [1, 2, 3]
    (message,) = caplog.messages
    assert re.search(
        "a SimpleNamespace in the batch is passed on as it is.*not on cuda:1: put them into", message
    )
