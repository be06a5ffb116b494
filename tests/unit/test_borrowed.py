"""Whoever writes to the memory of a batch that is open is noticed, however it writes."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edldist.errors import InputError
from edldist.student.memory.borrowed import Borrowed
from edldist.student.memory.containers import copied, taken_over
from edldist.student.memory.leaves import leaves

Pair = namedtuple("Pair", "image label")


@dataclasses.dataclass
class Sample:
    image: torch.Tensor


def looked_at(*values) -> Borrowed:
    return Borrowed(leaves(*values))


def through_numpy(tensor: torch.Tensor) -> None:
    tensor.numpy()[:] += 1


def through_data(tensor: torch.Tensor) -> None:
    tensor.data.add_(1)


def in_place(tensor: torch.Tensor) -> None:
    tensor.add_(1)


@pytest.mark.parametrize("write", [through_numpy, through_data, in_place])
@pytest.mark.parametrize("shape", [(4,), (128, 3), (64, 3, 32, 32)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
def test_a_refill_is_noticed_however_it_is_written(write, shape, dtype):
    tensor = torch.zeros(shape, dtype=dtype)
    looks = looked_at({"x": tensor})
    looks.check()
    write(tensor)
    with pytest.raises(InputError, match=r"a tensor of torch.*was written to.*copy_batches=True"):
        looks.check()


def test_one_element_of_many_that_torch_writes_is_noticed():
    tensor = torch.zeros(100_000)
    looks = looked_at(tensor)
    tensor[777] = 1.0
    with pytest.raises(InputError):
        looks.check()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: (t, 3, "text"),
        lambda t: Pair(None, t),
        lambda t: {"deep": [{"er": t}]},
        Sample,
        lambda t: [torch.zeros(2), t],
    ],
)
def test_tensors_are_found_in_any_structure(wrap):
    tensor = torch.zeros(3)
    looks = looked_at(wrap(tensor))
    tensor.fill_(7)
    with pytest.raises(InputError):
        looks.check()


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_arrays_are_looked_at_too(dtype):
    whole = np.zeros((64, 40), dtype)
    for array in (whole, whole[::2], whole[:, ::3], whole[::-1], whole.T):
        looks = looked_at({"x": array})
        looks.check()
        array += 1
        with pytest.raises(InputError, match="an array of"):
            looks.check()
    looked_at(np.array(["a", None], dtype=object), np.zeros((0, 3))).check()


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.permute(0, 2, 3, 1),
        lambda t: t.to(memory_format=torch.channels_last),
        lambda t: t[::2],
        lambda t: t[:, 1:],
        lambda t: t[..., ::3],
        lambda t: t[0].expand(4, *t.shape[1:]),
    ],
)
def test_strides_of_any_kind_are_read_where_the_tensor_is(view):
    whole = torch.zeros(8, 3, 20, 20)
    tensor = view(whole)
    looks = looked_at(tensor)
    looks.check()
    tensor.data[0] = 5
    with pytest.raises(InputError):
        looks.check()


def test_writes_beside_a_view_are_none_to_it():
    bank = torch.zeros(100, 64)
    looks = [looked_at(bank[10:20]), looked_at(bank[:, ::2]), looked_at(bank[30:40, 3:9])]
    bank[0:10] += 1
    bank[20:] += 1
    looks[0].check()
    bank.zero_()
    bank[:, 1::2] += 1
    looks[1].check()
    bank.zero_()
    bank[30:40, :3] += 1
    bank[30:40, 9:] += 1
    looks[2].check()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0, 5),
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, device="meta"),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
        torch.zeros(3, dtype=torch.bfloat16),
        torch.zeros(3, dtype=torch.complex64),
        torch.nn.Parameter(torch.zeros(3)),
    ],
    ids=["empty", "sparse", "meta", "nested", "bfloat16", "complex", "parameter"],
)
def test_tensors_of_every_kind_pass_untouched(tensor):
    looked_at(tensor).check()


def test_inference_tensors_count_no_writes_and_are_read():
    with torch.inference_mode():
        tensor = torch.zeros(5)
        looks = looked_at(tensor)
        looks.check()
        tensor += 1
    with pytest.raises(InputError):
        looks.check()


@pytest.mark.parametrize("kind", [list, tuple])
def test_long_lists_of_texts_and_numbers_are_not_gone_through(kind):
    class Counted(kind):
        def __iter__(self):
            raise AssertionError("gone through")

    assert leaves({"name": Counted([f"file {n}" for n in range(1000)]), "at": Counted(range(1000))}) == []


def test_tensors_among_texts_and_numbers_are_found():
    tensors = [torch.zeros(n) for n in range(4)]
    first, second, third, fourth = tensors
    found = leaves((3, first, "text"), [None, second], [*["text"] * 99, third], [fourth, *range(99)], tensors)
    assert sorted(map(id, found)) == sorted(map(id, tensors))


class OnDevice(torch.Tensor):
    """Host memory that passes for an accelerator's."""

    device = torch.device("cuda", 0)
    is_cpu = False


def test_two_open_batches_in_the_same_memory_of_an_accelerator_are_refused():
    memory = torch.zeros(4).as_subclass(OnDevice)
    first, second = looked_at({"x": memory}), looked_at({"y": torch.zeros(4).as_subclass(OnDevice)})
    second.check_apart([first])
    with pytest.raises(InputError, match="same memory of cuda:0.*copy_batches=True"):
        looked_at({"z": memory}).check_apart([second, first])


def test_a_copy_has_the_structure_of_the_batch_and_none_of_its_memory():
    image, array, hidden = torch.zeros(3), np.zeros(3), torch.zeros(3)
    batch = {"pair": Pair(image, 3), "array": [array], "odd": SimpleNamespace(x=hidden), "name": "n"}
    made = copied(batch)
    for memory in (image, array, hidden):
        memory += 1
    assert type(made["pair"]) is Pair and made["name"] == "n"
    assert made["pair"].image.tolist() == made["array"][0].tolist() == made["odd"].x.tolist() == [0, 0, 0]


def test_an_object_that_nobody_can_make_anew_may_not_be_filled_again():
    class Handle:
        """It would be closed twice, if there were two."""

        def __init__(self) -> None:
            self.frame = torch.zeros(3)

        def __del__(self) -> None:
            pass

    handle = Handle()
    taken = taken_over({"handle": handle})
    looks = Borrowed([*taken.parts, *taken.hidden], left=taken.left)
    looks.check()
    handle.frame = torch.zeros(3)
    with pytest.raises(InputError, match=r"a \S*Handle in a batch was filled with other tensors"):
        looks.check()
    looks = Borrowed([], left=taken_over({"handle": handle}).left)
    handle.frame.add_(1)
    with pytest.raises(InputError, match=r"a tensor of torch.float32 and shape \[3\] in a batch was written"):
        looks.check()
