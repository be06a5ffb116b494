"""Packing of state: every supported value comes back equal, and of the same type."""

import datetime
import enum
import json
import math
import struct
import sys
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.checkpoint.sameness import bits_of, values_of
from edldist.checkpoint.tree import is_sharded, pack, placeholders, unpack
from edldist.errors import CheckpointError

NUMPY = (
    "?",
    "i1",
    "u2",
    ">i4",
    "<i8",
    "f2",
    ">f4",
    "f8",
    "g",
    "c8",
    "c16",
    "M8[ns]",
    "m8[D]",
    "S3",
    "U2",
    "V3",
)
RECORDS = ([("a", "<i4"), ("b", ">f8", (2,))], [(("title", "a"), "f2"), ("deep", [("x", "U2"), ("y", "?")])])
TORCH = (torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64)


def raw_array(dtype):
    """Arrays of any bits, NaNs of every kind among them, of any rank and order."""

    def made(drawn):
        shape, data, transposed = drawn
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        kind = np.dtype(dtype).kind
        bits = (data * (size // max(1, len(data)) + 1))[:size]
        if kind in "?bUV":  # not every bit pattern is one of these
            bits = bytes(byte % 2 for byte in bits) if kind != "U" else bytes(size)
        array = np.ndarray(shape, dtype, buffer=bytearray(bits))
        return array.T if transposed else array

    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    return st.tuples(shapes, st.binary(min_size=1, max_size=64), st.booleans()).map(made)


def tensor_of(drawn):
    dtype, numbers, view = drawn
    return view(torch.tensor(numbers, dtype=torch.float64).to(dtype).reshape(len(numbers), 1))


arrays = st.sampled_from(NUMPY).flatmap(raw_array)
records = st.sampled_from([np.dtype(fields) for fields in RECORDS]).map(lambda dtype: np.zeros(2, dtype))
tensors = st.tuples(
    st.sampled_from(TORCH),
    st.lists(st.floats(-100, 100), max_size=5),
    st.sampled_from([torch.clone, torch.t, lambda t: t[::2], lambda t: t.sum(), lambda t: t.expand(-1, 3)]),
).map(tensor_of)
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats()
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.complex_numbers()
    | st.sampled_from([torch.bfloat16, torch.Size([2, 3]), frozenset({1}), -0.0, "\udcff", ""])
)
hashable = st.integers() | st.floats() | st.text() | st.tuples(st.integers(), st.text()) | st.just(np.int8(3))
elements = scalars | arrays | records | tensors | arrays.filter(lambda a: a.size).map(lambda a: a.flat[0])


class Colour(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")
OVERLAPPING = np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]})
STRANGE = [
    *(Colour.RED, Point(1, 2), defaultdict(list, a=[1]), deque([1]), range(3), slice(1), Fraction(1, 3)),
    *(Decimal("0.1"), datetime.datetime(2020, 1, 1), Path("/a"), object(), len, memoryview(b"a"), {(1,): 1}),
    *(type("Text", (str,), {})("a"), type("Number", (float,), {})(0.5), type("List", (list,), {})([1])),
    *(np.ma.masked_array([1, 2], [0, 1]), np.ma.masked, np.rec.array([(1, 2)]), np.rec.array([(1, 2)])[0]),
    *(np.array([object()]), np.array(["a"], np.dtypes.StringDType()), np.bytes_(b"a\0"), np.str_("a\0")),
    *(np.zeros(1, np.dtype("f8", metadata={"a": 1})), np.zeros(1, OVERLAPPING), {b"key": 1}),
    *(torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), torch.device("cpu"), {torch.ones(1)}),
    *(torch.ones(2).as_subclass(type("Picture", (torch.Tensor,), {})), torch.strided),
    torch.nn.parameter.UninitializedParameter(),
]
values = st.recursive(
    elements | st.sampled_from(STRANGE),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
        | st.dictionaries(hashable, st.integers()).map(Counter)
        | st.sets(hashable)
        | st.frozensets(hashable)
    ),
    max_leaves=20,
)


def through_json(value):
    tree, tensors = pack(value, "x")
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), tensors.__getitem__)


def bits(value):
    """A leaf as something that is equal only for the same bits."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.contiguous().view(-1).view(torch.uint8).tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype, value.dtype.fields, value.shape, value.tobytes()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("d", value)
    if isinstance(value, complex):
        return bits(value.real), bits(value.imag)
    return value


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return (
            same(list(a), list(b))
            and same(list(a.values()), list(b.values()))
            and same(*map(vars_of, (a, b)))
        )
    if isinstance(a, (set, frozenset)):
        return same(sorted(a, key=repr), sorted(b, key=repr))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bits(a) == bits(b)


def vars_of(value):
    return sorted(getattr(value, "__dict__", {}).items())


@given(values)
@settings(max_examples=300)
def test_values_come_back_equal_to_the_bit_and_of_their_type_or_are_refused(value):
    try:
        back = through_json(value)
    except CheckpointError as exc:
        assert str(exc).startswith("x")  # the path
        return
    assert same(back, value)


@given(elements)
@settings(max_examples=300)
def test_what_can_be_held_is_not_refused(value):
    assert same(through_json({"a": [value]}), {"a": [value]})


@pytest.mark.parametrize("value", STRANGE, ids=lambda value: f"{type(value).__name__}")
def test_what_would_come_back_as_something_else_is_refused_with_its_path(value):
    with pytest.raises(CheckpointError, match=r"^x/deep/0 (is|has)"):
        pack({"deep": [value]}, "x")


def test_a_modules_state_keeps_the_versions_of_its_formats_wherever_it_lies():
    state = torch.nn.BatchNorm1d(2).state_dict()
    back = through_json([state])[0]
    assert back._metadata == state._metadata and back._metadata[""]["version"] == 2


@pytest.mark.parametrize("value", [10**5000, -(10**5000), {10**5000}, {10**5000: 1}], ids=lambda value: "")
def test_numbers_longer_than_python_writes_come_back(value):
    assert through_json(value) == value


def test_two_tensors_under_keys_that_look_alike_are_refused():
    with pytest.raises(CheckpointError, match="x/=nan is the path of two tensors"):
        pack({float("nan"): torch.ones(1), float("-nan"): torch.zeros(1)}, "x")


def test_a_value_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(CheckpointError, match="x/0/0/.* more than 100 levels deep, or holds itself"):
        pack(value, "x")


def test_what_is_nested_as_deep_as_allowed_comes_back():
    value = []
    for _ in range(100):
        value = [value]
    assert through_json(value) == value
    with pytest.raises(CheckpointError, match="more than 100 levels deep"):
        pack([value], "x")


def test_sets_that_are_equal_are_packed_alike_in_whatever_order_they_were_filled():
    one, two = {8, 0}, {0, 8}
    assert list(one) != list(two), "both lie in the same place of the table"
    assert pack(one, "x") == pack(two, "x")


def test_what_kind_of_tensor_is_refused_is_said():
    for tensor, what in (
        (torch.zeros(2, device="meta"), "x is a meta tensor, which"),
        (torch.zeros(2, 2).to_sparse(), "x is a torch.sparse_coo, nested or quantized tensor, which"),
    ):
        with pytest.raises(CheckpointError, match=what):
            pack(tensor, "x")


def test_arrays_can_be_written_to():
    array = through_json(np.arange(6, dtype=">i2").reshape(2, 3).T)
    array += 1
    assert array.dtype == ">i2" and array.tolist() == [[1, 4], [2, 5], [3, 6]]


@given(st.lists(keys, min_size=2, max_size=6, unique_by=repr))
def test_different_paths_give_different_tensor_keys(names):
    value = OrderedDict((name, {"a/b": torch.zeros(1), "a": {"b": torch.zeros(2)}}) for name in names)
    tree, tensors = pack(value, "x")
    assert len(tensors) == 2 * len(value)
    assert [(key, info.shape) for key, info in placeholders(tree)] == [
        (key, tuple(tensor.shape)) for key, tensor in tensors.items()
    ]


def test_an_unknown_tag_is_refused():
    with pytest.raises(CheckpointError, match="'!future'"):
        unpack([{"!future": 1}], {}.__getitem__)


@pytest.fixture
def group_of_one(tmp_path):
    meeting = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:Please use DTensor instead")
def test_the_sharded_tensors_that_torch_gave_up_are_refused(group_of_one):
    from torch.distributed._shard import sharded_tensor
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec

    value = sharded_tensor.ones(ChunkShardingSpec(dim=0, placements=["rank:0/cpu"]), 4, 2)
    with pytest.raises(CheckpointError, match="model/w is a ShardedTensor, .*: use DTensor"):
        pack({"w": value}, "model")


def test_a_tensor_of_which_ranks_hold_parts_is_told_from_others(group_of_one):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    whole = torch.arange(4.0)
    value = distribute_tensor(whole, init_device_mesh("cpu", (1,)), [Shard(0)])
    assert is_sharded(value) and not is_sharded(whole)
    tree, tensors = pack({"part": value, "whole": whole}, "x")
    assert [str(info) for _, info in placeholders(tree)] == ["float32[4]", "float32[4]"]
    # What ranks have of it differs, and has to.
    assert values_of(tree, tensors, own_object=True).bits == {"x/part": "sharded", "x/whole": bits_of(whole)}


def test_without_the_module_of_sharded_tensors_there_are_none(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch.distributed.tensor", raising=False)
    assert not is_sharded(torch.ones(1))
