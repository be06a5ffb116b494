"""Tensors as frames: bit-exact both ways, without copies, and nothing that lies gets through."""

from __future__ import annotations

import gc
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.errors import WireError
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import DTYPES, as_bytes, as_rows, check, dtype_name, pack, spec_of, unpack


def _filled(dtype: torch.dtype, shape: list[int], seed: int = 0) -> torch.Tensor:
    """A contiguous tensor of random bits (bools excepted), NaNs of all kinds included."""
    generator = torch.Generator().manual_seed(seed)
    if dtype is torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    raw = torch.randint(0, 256, (math.prod(shape) * dtype.itemsize,), generator=generator, dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def _bits(tensor: torch.Tensor) -> bytes:
    return bytes(as_bytes(tensor))


def _travel(tensor: torch.Tensor) -> torch.Tensor:
    specs, frames = pack({"x": tensor})
    return unpack(specs, [memoryview(bytearray(frame)) for frame in frames])["x"]


SHAPES = st.lists(st.integers(0, 4), max_size=4)


@given(st.sampled_from(sorted(DTYPES)), SHAPES, st.integers(0, 1000))
def test_every_dtype_and_shape_comes_back_bit_for_bit(name: str, shape: list[int], seed: int) -> None:
    tensor = _filled(DTYPES[name], shape, seed)
    back = _travel(tensor)
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert _bits(back) == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 4), min_size=2, max_size=3), st.data())
def test_strided_views_arrive_as_they_are_seen(name: str, shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    step = data.draw(st.integers(1, 3))
    view = _filled(DTYPES[name], shape).permute(order)[::step]
    back = _travel(view)
    assert back.shape == view.shape
    assert (
        _bits(back) == view.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes()
    )


def test_expanded_and_offset_tensors_travel() -> None:
    assert _travel(torch.arange(3).expand(4, 3)).tolist() == [[0, 1, 2]] * 4
    assert _travel(torch.arange(10)[3:7]).tolist() == [3, 4, 5, 6]


def test_a_negative_view_arrives_negated() -> None:
    view = torch.complex(torch.ones(3), torch.tensor([1.0, 2.0, 3.0])).conj().imag
    assert view.is_neg()
    assert _travel(view).tolist() == [-1.0, -2.0, -3.0]
    assert _travel(torch._neg_view(torch.arange(3.0))).tolist() == [0.0, -1.0, -2.0]


def test_tensors_that_need_gradients_travel() -> None:
    leaf = torch.ones(3, requires_grad=True)
    back = _travel(leaf * 2)
    assert back.tolist() == [2.0, 2.0, 2.0]
    assert not back.requires_grad


def test_names_and_their_order_are_kept() -> None:
    specs, frames = pack({"b": torch.zeros(1), "a": torch.ones(2), "": torch.tensor(7)})
    assert [spec.name for spec in specs] == ["b", "a", ""]
    assert list(unpack(specs, frames)) == ["b", "a", ""]


def test_packing_a_contiguous_tensor_copies_nothing() -> None:
    tensor = torch.zeros(4)
    (frame,) = pack({"x": tensor})[1]
    tensor[0] = 1.0
    assert frame[:4].cast("f")[0] == 1.0


def test_unpacking_a_writable_frame_copies_nothing() -> None:
    raw = bytearray(16)
    tensor = unpack([TensorSpec(name="x", dtype="float32", shape=[4])], [memoryview(raw)])["x"]
    raw[0:4] = memoryview(torch.tensor([2.5]).numpy()).cast("B")
    assert tensor[0] == 2.5


def test_the_bytes_keep_the_tensor_alive() -> None:
    frames = [as_bytes(torch.full((1000,), value, dtype=torch.int64)) for value in range(50)]
    gc.collect()
    trash = [torch.full((1000,), -1, dtype=torch.int64) for _ in range(50)]
    assert [frame.cast("q")[999] for frame in frames] == list(range(50))
    assert len(trash) == 50


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [[4], [4, 3], [4, 2, 5], [4, 0]])
def test_what_is_written_to_the_rows_of_a_tensor_is_in_it(dtype: str, shape: list[int]) -> None:
    tensor, other = torch.empty(shape, dtype=DTYPES[dtype]), _filled(DTYPES[dtype], shape)
    rows = as_rows(tensor, 4)
    assert rows.shape == (4, tensor.nbytes // 4)
    for row in (2, 0, 3, 1):
        rows[row] = as_rows(other, 4)[row]
    assert _bits(tensor) == _bits(other)


def test_the_tensor_keeps_its_frame_alive() -> None:
    spec = TensorSpec(name="x", dtype="uint8", shape=[1000])
    tensors = [unpack([spec], [memoryview(bytearray([v]) * 1000)])["x"] for v in range(50)]
    gc.collect()
    trash = [bytearray(1000) for _ in range(50)]
    assert [int(tensor[999]) for tensor in tensors] == list(range(50))
    assert len(trash) == 50


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("offset", [1, 2, 3, 4, 7])
def test_frames_at_odd_addresses_are_read_right(dtype: str, offset: int) -> None:
    tensor = _filled(DTYPES[dtype], [5])
    raw = bytearray(64)
    size = tensor.nbytes
    raw[offset : offset + size] = as_bytes(tensor)
    frame = memoryview(raw)[offset : offset + size]
    back = unpack([spec_of("x", tensor)], [frame])["x"]
    assert _bits(back) == _bits(tensor)
    assert back.data_ptr() % back.itemsize == 0


def test_read_only_frames_are_copied_not_exposed() -> None:
    raw = bytes(16)
    tensor = unpack([TensorSpec(name="x", dtype="float32", shape=[4])], [memoryview(raw)])["x"]
    tensor += 1
    assert raw == bytes(16)


@pytest.mark.parametrize(
    ("shape", "nbytes"),
    [([4], 15), ([4], 17), ([4], 0), ([], 0), ([0], 4), ([2**62, 2**62], 0), ([2**64], 16), ([2, 3], 20)],
)
def test_sizes_that_lie_are_refused(shape: list[int], nbytes: int) -> None:
    with pytest.raises(WireError, match="'x'"):
        unpack([TensorSpec(name="x", dtype="float32", shape=shape)], [memoryview(bytearray(nbytes))])


@pytest.mark.parametrize(
    "shape", [[-1], [-1, -4], [-2, -2], [0, -1], [0, 2**63], [0, 2**62, 2**62], [2**64, 0], [0, 2**61]]
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_shapes_that_no_tensor_has_are_refused(shape: list[int], dtype: str) -> None:
    spec = TensorSpec(name="x", dtype=dtype, shape=shape)
    nbytes = min(64, max(0, math.prod(shape) * DTYPES[dtype].itemsize))
    with pytest.raises(WireError, match="'x'"):
        unpack([spec], [memoryview(bytearray(nbytes))])
    with pytest.raises(WireError, match="'x'"):
        check(spec, bytes(nbytes))


@given(
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=16),
    st.sampled_from(sorted(DTYPES)),
    st.integers(0, 64),
)
@settings(max_examples=300)
def test_any_shape_of_the_wire_is_a_tensor_or_a_wire_error(shape: list[int], dtype: str, nbytes: int) -> None:
    try:
        tensor = unpack([TensorSpec(name="x", dtype=dtype, shape=shape)], [memoryview(bytearray(nbytes))])[
            "x"
        ]
    except WireError:
        return
    assert list(tensor.shape) == shape
    assert tensor.nbytes == nbytes


@pytest.mark.parametrize("dtype", ["float", "complex64", "object", "", "torch.float32", "__class__"])
def test_unknown_dtypes_are_refused(dtype: str) -> None:
    with pytest.raises(WireError, match="unknown dtype"):
        unpack([TensorSpec(name="x", dtype=dtype, shape=[1])], [memoryview(bytearray(4))])


def test_counts_must_agree() -> None:
    spec = TensorSpec(name="x", dtype="uint8", shape=[1])
    for specs, frames in (([spec], []), ([], [memoryview(b"a")]), ([spec], [memoryview(b"a")] * 2)):
        with pytest.raises(WireError, match="announced"):
            unpack(specs, frames)
    assert unpack([], []) == {}


def test_a_name_may_come_once() -> None:
    spec = TensorSpec(name="x", dtype="uint8", shape=[1])
    with pytest.raises(WireError, match="twice"):
        unpack([spec, spec], [memoryview(b"a"), memoryview(b"b")])


def _quantized() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that it will drop them
        return torch._empty_affine_quantized([3], scale=0.1, zero_point=0, dtype=torch.qint8)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: torch.zeros(2, dtype=torch.complex64), id="complex"),
        pytest.param(lambda: torch.zeros(2, dtype=torch.complex64).conj(), id="conjugate"),
        pytest.param(lambda: torch.eye(2).to_sparse(), id="sparse"),
        pytest.param(lambda: torch.zeros(2, device="meta"), id="meta"),
        pytest.param(_quantized, id="quantized"),
    ],
)
def test_what_cannot_travel_is_refused_with_a_wire_error(make) -> None:
    with pytest.raises(WireError, match="sent"):
        pack({"x": make()})


def test_nested_tensors_are_refused() -> None:
    with pytest.warns(UserWarning, match="nested"):
        nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    with pytest.raises(WireError, match="dense"):
        as_bytes(nested)


def test_a_frame_over_the_limit_is_refused_with_its_name_and_size() -> None:
    assert pack({"x": torch.zeros(4)}, max_frame_bytes=16)[1][0].nbytes == 16
    with pytest.raises(WireError, match=r"'big'.*\[5\].*20 bytes.*16"):
        pack({"x": torch.zeros(4), "big": torch.zeros(5)}, max_frame_bytes=16)


def test_dtype_names_are_those_of_torch() -> None:
    for name, dtype in DTYPES.items():
        assert str(dtype) == f"torch.{name}"
        assert dtype_name(dtype) == name


def test_every_float_int_and_bool_dtype_of_torch_travels() -> None:
    kinds = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    left_out = {str(kind).removeprefix("torch.") for kind in kinds - set(DTYPES.values())}
    partial = (
        "bits",
        "complex",
        "q",
        "int1",
        "int2",
        "int3",
        "int4",
        "int5",
        "int6",
        "int7",
        "uint",
        "float",
    )
    assert all(name.startswith(partial) for name in left_out), left_out
    assert {"float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool"} <= set(DTYPES)
