"""A digest that tells weights apart, wherever they lie."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edldist.teacher.model import digest
from edldist.teacher.model.digest import weights_digest


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2, bias=False))


def test_equal_weights_have_one_digest_of_32_digits():
    assert weights_digest(model()) == weights_digest(model())
    assert len(bytes.fromhex(weights_digest(model()))) == 16


def test_other_weights_have_another():
    assert weights_digest(model(0)) != weights_digest(model(1))


def test_memory_format_and_mode_change_nothing():
    moved = model().eval().to(memory_format=torch.channels_last)
    assert weights_digest(moved) == weights_digest(model())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[1].running_mean.add_(1),
        lambda m: m[0].weight.data.view(-1)[-1:].add_(1e-3),
        lambda m: m.to(torch.float64),
        lambda m: m.add_module("more", nn.Linear(1, 1)),
        lambda m: setattr(m[3], "weight", nn.Parameter(m[3].weight.data.reshape(16, 2))),
    ],
    ids=["buffer", "one value", "dtype", "name", "shape"],
)
def test_a_change_of_value_dtype_name_or_shape_shows(change):
    changed = model()
    with torch.no_grad():
        change(changed)
    assert weights_digest(changed) != weights_digest(model())


def test_buffers_that_are_not_saved_do_not_count():
    with_cache = model()
    with_cache.register_buffer("cache", torch.rand(3), persistent=False)
    assert weights_digest(with_cache) == weights_digest(model())


class _Large(nn.Module):
    """A model of so many different float32 values."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.big = nn.Parameter(torch.arange(values, dtype=torch.float32))


def test_a_large_model_is_read_in_blocks_within_a_bound(monkeypatch):
    monkeypatch.setattr(digest, "READ_BYTES", 1 << 20)
    large = _Large(1 << 21)  # 8 MiB
    read = sum(block.nbytes for block in digest._blocks(large.big, (1 << 20) / large.big.nbytes))
    assert read == 1 << 20
    before = weights_digest(large)
    large.big.data[0] += 1
    first = weights_digest(large)
    large.big.data[-1] += 1
    last = weights_digest(large)
    large.big.data *= 1.01
    assert len({before, first, last, weights_digest(large)}) == 4


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to(torch.float8_e4m3fn),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_every_dtype_and_shape_is_read(tensor):
    holder = nn.Module()
    holder.register_buffer("x", tensor)
    before = weights_digest(holder)
    assert before == weights_digest(holder)
    if tensor.numel():
        holder.x = torch.zeros_like(tensor)
        assert weights_digest(holder) != before


@pytest.mark.parametrize(
    "odd",
    [
        lambda: nn.LazyLinear(3),
        lambda: nn.Linear(3, 3, device="meta"),
        lambda: _holding(torch.eye(3).to_sparse()),
    ],
    ids=["lazy", "meta", "sparse"],
)
def test_weights_that_cannot_be_read_as_memory_count_by_name_and_shape(odd):
    assert weights_digest(odd()) == weights_digest(odd())


def _holding(tensor: torch.Tensor) -> nn.Module:
    module = nn.Module()
    module.register_buffer("x", tensor)
    return module
