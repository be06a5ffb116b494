"""Packing of state: every supported value comes back equal, and of the same type."""

import json
import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.checkpoint.tree import pack, placeholders, unpack
from edldist.errors import CheckpointError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.sampled_from([torch.bfloat16, torch.Size([2, 3]), np.float32(0.1), np.int64(7), frozenset({1})])
)
keys = st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(OrderedDict)
        | st.sets(st.integers())
    ),
    max_leaves=20,
)


def through_json(value):
    tree, tensors = pack(value, "x")
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), tensors.__getitem__)


def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(map(repr, a)) == list(map(repr, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@given(values)
def test_values_come_back_equal_and_of_their_type(value):
    assert same(through_json(value), value)


def test_values_that_compare_oddly_come_back():
    assert math.isnan(through_json(math.nan))
    assert through_json([math.inf, -math.inf]) == [math.inf, -math.inf]
    array = np.arange(6, dtype=">i2").reshape(2, 3).T
    back = through_json({"a": array, "c": Counter("aab"), "b": bytearray(b"x")})
    assert back["a"].dtype == array.dtype and (back["a"] == array).all() and back["a"].flags.writeable
    assert type(back["c"]) is Counter and back["c"] == Counter("aab") and type(back["b"]) is bytearray


@given(st.lists(keys, min_size=2, max_size=6, unique_by=repr))
def test_different_paths_give_different_tensor_keys(names):
    value = OrderedDict((name, {"a/b": torch.zeros(1), "a": {"b": torch.zeros(2)}}) for name in names)
    tree, tensors = pack(value, "x")
    assert len(tensors) == 2 * len(value)
    assert [(key, info.shape) for key, info in placeholders(tree)] == [
        (key, tuple(tensor.shape)) for key, tensor in tensors.items()
    ]


@pytest.mark.parametrize("value", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), lambda: 0])
def test_what_no_checkpoint_can_hold_is_named(value):
    with pytest.raises(CheckpointError, match="x/deep/0 is a"):
        pack({"deep": [value]}, "x")


def test_an_unknown_tag_is_refused():
    with pytest.raises(CheckpointError, match="'!future'"):
        unpack([{"!future": 1}], {}.__getitem__)


@pytest.mark.filterwarnings("ignore:Please use DTensor instead")
def test_the_sharded_tensors_that_torch_gave_up_are_refused(tmp_path):
    meeting = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        from torch.distributed._shard import sharded_tensor
        from torch.distributed._shard.sharding_spec import ChunkShardingSpec

        value = sharded_tensor.ones(ChunkShardingSpec(dim=0, placements=["rank:0/cpu"]), 4, 2)
        with pytest.raises(CheckpointError, match="model/w is a ShardedTensor, .*: use DTensor"):
            pack({"w": value}, "model")
    finally:
        torch.distributed.destroy_process_group()
