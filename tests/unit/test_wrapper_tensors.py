"""Tensors that have no memory of their own: nothing is read there, and the tensors in them are watched."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.masked import masked_tensor
from torch.utils._pytree import tree_map

from edldist.errors import InputError
from edldist.student.batch.held_bytes import held_bytes
from edldist.student.memory.borrowed import Borrowed
from edldist.student.memory.descriptors import keep_few
from edldist.student.memory.leaves import leaves
from edldist.student.memory.ownership import unshared


class Wrapper(torch.Tensor):
    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __init__(self, inner):
        pass

    def __tensor_flatten__(self):
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        def inside(value):
            return value.inner if isinstance(value, Wrapper) else value

        return operation(*tree_map(inside, args), **tree_map(inside, kwargs or {}))


def masked(data):
    return masked_tensor(data, torch.ones_like(data, dtype=torch.bool))


def fake(data):
    with FakeTensorMode():
        return torch.empty(len(data))


def promised_zeros(data):
    return torch._efficientzerotensor((len(data),), dtype=torch.float32)


def twice_wrapped(data):
    return Wrapper(Wrapper(data))


SIZES = [4, 40_000]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", [Wrapper, twice_wrapped, masked, fake, promised_zeros])
def test_they_go_the_way_of_every_batch_and_no_memory_is_read(made, size):
    batch = {"x": made(torch.rand(size))}
    parts = leaves(batch)
    looks = Borrowed(parts, unshared(parts))
    assert keep_few(batch, parts, lambda: 0) == (batch, 0)
    assert held_bytes(batch) >= 0
    looks.check()
    looks.check_apart([looks])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("made", [Wrapper, twice_wrapped])
def test_a_write_to_what_they_wrap_is_noticed(made, size):
    inside = torch.zeros(size)
    looks = Borrowed([made(inside)])
    inside.numpy()[size // 2] = 3
    with pytest.raises(InputError, match="written to"):
        looks.check()


@pytest.mark.filterwarnings("ignore")
def test_a_write_to_what_a_masked_tensor_is_made_of_is_noticed():
    tensor = masked(torch.zeros(4))
    looks = Borrowed([tensor])
    tensor._masked_mask[1] = False
    with pytest.raises(InputError, match="written to"):
        looks.check()


def test_one_that_was_given_another_tensor_is_noticed():
    wrapper = Wrapper(torch.zeros(4))
    looks = Borrowed([wrapper])
    wrapper.inner = torch.zeros(4)
    with pytest.raises(InputError, match="a Wrapper in a batch was filled"):
        looks.check()


def test_what_they_wrap_counts_as_held():
    inside = torch.zeros(1000)
    assert held_bytes({"a": Wrapper(inside), "b": inside}) == inside.nbytes
