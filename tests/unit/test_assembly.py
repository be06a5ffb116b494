"""Inputs leave as views, labels land in their place, and what does not fit is refused whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import InputError, LabelError, LabelMemoryError, WireError
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.label_rows import LabelRows
from edldist.student.batch.teacher_inputs import PLACES, TeacherInputs
from edldist.student.queue.flow import Flow
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import pack, unpack


def open_batch(samples: int = 6) -> OpenBatch:
    return OpenBatch(None, {"id": torch.arange(samples)}, samples)


def place(batch: OpenBatch, start: int, stop: int, teacher: str = "t", **labels) -> int:
    return batch.place(teacher, start, stop, LabelRows(*pack(labels), stop - start), 0)


def cut(batch: OpenBatch, start: int, stop: int) -> dict[str, torch.Tensor]:
    specs = [
        TensorSpec(name=name, dtype=dtype, shape=[stop - start, *shape])
        for name, dtype, shape in batch.inputs_of("t").layout
    ]
    return unpack(specs, batch.inputs_of("t").cut(start, stop))


@given(samples=st.integers(1, 40), cuts=st.sets(st.integers(1, 39)), seed=st.integers(0, 99))
def test_cuts_in_any_order_put_every_label_beside_its_sample(samples, cuts, seed):
    x = torch.randn(samples, 3, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    batch = OpenBatch("the batch", {"x": x, "id": torch.arange(samples)}, samples)
    edges = [0, *sorted(cut for cut in cuts if cut < samples), samples]
    order = torch.randperm(len(edges) - 1, generator=torch.Generator().manual_seed(seed)).tolist()
    for k in order:
        inputs = cut(batch, edges[k], edges[k + 1])
        place(batch, edges[k], edges[k + 1], double=inputs["x"] * 2, index=inputs["id"].to(torch.int32))
    labels = batch.labels()["t"]
    assert torch.equal(labels["double"], x * 2) and labels["double"].dtype == torch.bfloat16
    assert torch.equal(labels["index"], torch.arange(samples, dtype=torch.int32))


def test_a_cut_copies_nothing():
    x = torch.zeros(4, 2)
    inputs = cut(OpenBatch(None, {"x": x}, 4), 1, 3)
    x[1, 0] = 7.0
    assert inputs["x"][0, 0] == 7.0


def test_strided_inputs_are_cut_by_samples():
    x = torch.arange(12).reshape(3, 4).T
    assert torch.equal(cut(OpenBatch(None, {"x": x}, 4), 1, 3)["x"], x[1:3])


def test_buffers_are_made_once_per_teacher_and_their_bytes_reported():
    batch = open_batch()
    assert place(batch, 0, 2, logits=torch.zeros(2, 3)) == 6 * 3 * 4
    assert place(batch, 2, 6, logits=torch.zeros(4, 3)) == 0
    assert place(batch, 0, 6, teacher="u", logits=torch.ones(6)) == 6 * 4
    assert {teacher: list(tensors) for teacher, tensors in batch.labels().items()} == {
        "t": ["logits"],
        "u": ["logits"],
    }


LARGE = torch.arange(60_000, dtype=torch.float64).reshape(6, -1)


def shares_memory(batch: OpenBatch, frame: memoryview, name: str) -> bool:
    """Whether a change in a frame shows in the labels."""
    frame[0] ^= 1
    labels = batch.labels()["t"][name]
    return not torch.equal(labels, LARGE if name == "large" else LARGE[:, 0])


def test_an_answer_for_a_whole_batch_is_its_labels_uncopied():
    batch = open_batch()
    specs, frames = pack({"large": LARGE.clone(), "small": LARGE[:, 0].clone()})
    made = batch.place("t", 0, 6, LabelRows(specs, frames, 6, own_memory=True), 0)
    labels = batch.labels()["t"]
    assert made == sum(frame.nbytes for frame in frames)
    assert torch.equal(labels["large"], LARGE) and torch.equal(labels["small"], LARGE[:, 0])
    assert shares_memory(batch, frames[0], "large")
    assert not shares_memory(batch, frames[1], "small"), "a small frame may hold on to a larger buffer"


@pytest.mark.parametrize("why", ["lent", "pinned", "cut", "shared pass"])
def test_every_other_answer_is_copied(why):
    samples = 12 if why == "shared pass" else 6
    value = torch.cat([LARGE, -LARGE])[:samples]
    specs, frames = pack({"large": value})
    rows = LabelRows(specs, frames, samples, own_memory=why != "lent")
    if why == "pinned":
        batch = OpenBatch(None, {}, 6, allocate=lambda shape, dtype: torch.empty(shape, dtype=dtype))
        batch.place("t", 0, 6, rows, 0)
    elif why == "cut":
        batch = open_batch()
        half = pack({"large": LARGE[3:].clone()})
        batch.place("t", 3, 6, LabelRows(*half, 3, own_memory=True), 0)
        batch.place("t", 0, 3, LabelRows(*pack({"large": LARGE[:3]}), 3, own_memory=True), 0)
        frames = half[1]
    elif why == "shared pass":
        other = OpenBatch(None, {}, 12)  # as many samples as the pass, but only half of them are its own
        other.place("t", 0, 6, rows, 6)
        other.place("t", 6, 12, rows, 0)
        assert torch.equal(other.labels()["t"]["large"], torch.cat([-LARGE, LARGE]))
        batch = open_batch()
        batch.place("t", 0, 6, rows, 0)
    else:
        batch = open_batch()
        batch.place("t", 0, 6, rows, 0)
    assert torch.equal(batch.labels()["t"]["large"], LARGE)
    assert not shares_memory(batch, frames[0], "large")


def test_a_kept_frame_at_an_odd_address_becomes_aligned_labels():
    specs, frames = pack({"large": LARGE})
    shifted = memoryview(bytearray(1) + bytearray(frames[0]))[1:]
    batch = open_batch()
    batch.place("t", 0, 6, LabelRows(specs, [shifted], 6, own_memory=True), 0)
    labels = batch.labels()["t"]["large"]
    assert torch.equal(labels, LARGE) and labels.data_ptr() % 8 == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"logits": torch.ones(3, 4)}, "3, 4.* for 2 samples"),
        ({"logits": torch.ones(2, 5)}, "one shape"),
        ({"logits": torch.ones(2, 4, dtype=torch.float64)}, "one shape"),
        ({"other": torch.ones(2, 4)}, "'other'.*'logits'"),
        ({"logits": torch.ones(2, 4), "more": torch.ones(2)}, "for another"),
        ({"logits": torch.tensor(1.0)}, "first dimension"),
        ({}, "outputs"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_write_nothing(labels, message):
    batch = open_batch()
    place(batch, 0, 2, logits=torch.zeros(2, 4))
    place(batch, 2, 6, logits=torch.zeros(4, 4))
    with pytest.raises(LabelError, match=message):
        place(batch, 2, 4, **labels)
    assert not batch.labels()["t"]["logits"].any()


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec(name="x", dtype="float32", shape=[2, 9]),
        TensorSpec(name="x", dtype="float33", shape=[2, 1]),
        TensorSpec(name="x", dtype="float32", shape=[2, 0, 1 << 63]),
        TensorSpec(name="x", dtype="float32", shape=[2, 0, 1 << 62, 1 << 62]),
    ],
)
def test_a_lying_spec_is_a_label_error(spec):
    frame = memoryview(bytes(0 if 0 in spec.shape else 8))
    with pytest.raises(LabelError):
        open_batch().place("t", 0, 2, LabelRows([spec], [frame], 2), 0)


def test_labels_that_no_memory_holds_are_this_ranks_own_error():
    with pytest.raises(LabelMemoryError, match=r"36,028,797,018,963,968 bytes .* output 'x', float32\["):
        place(OpenBatch(None, {}, 1 << 50), 0, 1, x=torch.zeros(1, 8))


@pytest.mark.parametrize("error", [RuntimeError("pinned memory is used up\nand more"), MemoryError()])
def test_an_allocator_that_fails_says_how_much_for_what(error):
    def allocate(shape, dtype):
        raise error

    batch = OpenBatch(None, {}, 6, allocate=allocate)
    with pytest.raises(
        LabelMemoryError, match=r"48 bytes .*'x', float32\[6, 2\]: (pinned memory is used up|MemoryError)$"
    ):
        place(batch, 0, 2, x=torch.zeros(2, 2))
    assert batch.labels() == {}


def test_labels_without_a_byte_are_labels_too():
    batch = open_batch()
    for start in (0, 3):
        place(batch, start, start + 3, x=torch.zeros(3, 0))
    assert batch.labels()["t"]["x"].shape == (6, 0)


def test_one_output_twice_in_a_message_is_refused():
    specs, frames = pack({"x": torch.zeros(2)})
    with pytest.raises(LabelError, match="sent outputs"):
        open_batch().place("t", 0, 2, LabelRows(specs * 2, frames * 2, 2), 0)


def test_a_missing_frame_is_refused():
    specs, frames = pack({"x": torch.zeros(2), "y": torch.zeros(2)})
    with pytest.raises(LabelError, match="2 label tensors announced, 1 frames"):
        LabelRows(specs, frames[:1], 2)


def test_rows_of_several_tasks_land_each_in_its_own_batch():
    first, second = open_batch(2), open_batch(3)
    rows = LabelRows(*pack({"x": torch.arange(5)}), 5)
    first.place("t", 0, 2, rows, 0)
    second.place("t", 0, 3, rows, 2)
    assert first.labels()["t"]["x"].tolist() == [0, 1]
    assert second.labels()["t"]["x"].tolist() == [2, 3, 4]


def test_inputs_that_cannot_travel_are_refused_when_the_batch_is_opened():
    with pytest.raises(WireError, match="complex64"):
        OpenBatch(None, {"x": torch.zeros(2, dtype=torch.complex64)}, 2)


def test_a_batch_of_no_samples_has_no_labels():
    batch = OpenBatch(None, {"x": torch.zeros(0, 3)}, 0)
    assert batch.labels() == {}
    assert batch.nbytes == 0 and batch.inputs_of("t").wanted.runs == ()


def test_outputs_in_another_order_are_matched_by_name():
    batch = open_batch()
    place(batch, 0, 2, a=torch.zeros(2), b=torch.ones(2, 3))
    place(batch, 2, 6, b=torch.full((4, 3), 3.0), a=torch.full((4,), 2.0))
    labels = batch.labels()["t"]
    assert list(labels) == ["a", "b"]
    assert labels["a"].tolist() == [0, 0, 2, 2, 2, 2]
    assert labels["b"][:, 0].tolist() == [1, 1, 3, 3, 3, 3]


def test_a_teacher_may_see_a_part_of_the_batch_and_other_tensors():
    ids = torch.arange(6)
    odd = TeacherInputs({"id": ids[1::2], "more": torch.ones(3)}, 3)
    batch = OpenBatch({"id": ids}, {"id": ids}, 6, apart={"odd": odd})
    assert batch.inputs_of("odd") is odd and batch.inputs_of("t").samples == 6
    assert [name for name, _, _ in batch.inputs_of("odd").layout] == ["id", "more"]
    assert torch.frombuffer(odd.cut(1, 3)[0], dtype=torch.int64).tolist() == [3, 5]
    place(batch, 0, 6, y=ids * 2)
    place(batch, 1, 3, teacher="odd", y=torch.tensor([30, 50]))
    place(batch, 0, 1, teacher="odd", y=torch.tensor([10]))
    labels = batch.labels()
    assert labels["odd"]["y"].tolist() == [10, 30, 50] and labels["t"]["y"].tolist() == [0, 2, 4, 6, 8, 10]
    assert batch.nbytes == 48 + 24 + 12, "its copy of the odd ones, and what was made for it"


def test_labels_say_where_they_belong_and_those_of_a_teacher_that_is_passed_over_belong_nowhere():
    ids = torch.arange(6)
    odd = TeacherInputs({"id": ids[1::2]}, 3, places=torch.tensor([-1, 0, -1, 1, -1, 2]))
    first = TeacherInputs({"id": ids[:2]}, 2, places=torch.tensor([[0, 1, -1], [-1, -1, -1]]))
    batch = OpenBatch(None, {"id": ids}, 6, apart={"odd": odd, "first": first})
    assert {name: list(its) for name, its in batch.labels().items()} == {"odd": [PLACES], "first": [PLACES]}
    place(batch, 0, 3, teacher="odd", y=torch.tensor([10, 30, 50]))
    place(batch, 0, 2, y=ids[:2])
    labels = batch.labels()
    assert list(labels["t"]) == ["y"] and labels["first"][PLACES] is first.places
    assert labels["odd"]["y"].tolist() == [10, 30, 50] and labels["odd"][PLACES] is odd.places
    assert batch.missed == 0 and batch.labelled == {"t", "odd"}
    batch.passed_over = frozenset({"t", "first"})
    labels = batch.labels()
    assert list(labels["t"]) == list(labels["first"]) == [PLACES], "not even what it had"
    assert labels["t"][PLACES].tolist() == [-1] * 6
    assert labels["first"][PLACES].tolist() == [[-1] * 3] * 2
    assert batch.missed == 8 and batch.labelled == {"odd"}


def test_labels_that_are_let_go_leave_nothing_behind():
    batch = open_batch(4)
    assert batch.bytes_of("t") == batch.free("t") == 0
    batch.place("t", 0, 4, LabelRows(*pack({"y": torch.zeros(4)}), 4), 0, version=3)
    assert batch.has_older("t", 4) and not batch.has_older("t", 3)
    assert batch.bytes_of("t") == batch.free("t") == 16
    assert batch.bytes_of("t") == 0 and not batch.has_older("t", 4) and batch.labels() == {}


def test_samples_with_lengths_are_cut_and_labelled_by_their_rows():
    tokens = torch.arange(10)
    packed = TeacherInputs({"token": tokens}, 3, lengths=[2, 5, 3])
    batch = OpenBatch({"token": tokens}, {}, 3, apart={"t": packed})
    assert (packed.rows, packed.row_bytes, packed.wanted.cost(1, 3)) == (10, 8, 8)
    assert torch.frombuffer(packed.cut(1, 2)[0], dtype=torch.int64).tolist() == [2, 3, 4, 5, 6]
    rows = LabelRows(*pack({"y": torch.arange(10) * 10}), 10)
    batch.place("t", 1, 3, rows, 2)
    batch.place("t", 0, 1, rows, 0)
    assert batch.labels()["t"]["y"].tolist() == list(range(0, 100, 10))


@pytest.mark.parametrize(
    ("flow", "lengths", "most", "message"),
    [
        (Flow(), None, 8, None),
        (
            Flow(),
            None,
            7,
            "a task of 1 samples of 8 bytes .input 'x'. exceeds the limit .*, 7 bytes$",
        ),
        (Flow(task_size=2), None, 16, None),
        (Flow(task_size=2), None, 15, "a task of 2 samples .* set task_size to at most 1$"),
        (Flow(fixed=True), None, 32, None),
        (Flow(fixed=True), None, 31, "a task of 4 samples .* set task_size to at most 3$"),
        (Flow(), [1, 3, 2, 1], 24, None),
        (Flow(), [1, 3, 2, 1], 23, "a task of 3 rows of 8 bytes"),
        (Flow(task_size=2), [1, 3, 2, 1], 32, None),
        (Flow(task_size=2), [1, 3, 2, 1], 31, "a task of 4 rows .* set task_size to at most 1$"),
    ],
)
def test_what_no_frame_can_carry_is_refused_when_the_batch_is_read(flow, lengths, most, message):
    rows = 4 if lengths is None else sum(lengths)
    inputs = TeacherInputs({"small": torch.zeros(rows), "x": torch.zeros(rows, 2)}, 4, lengths)
    if message is None:
        inputs.fit_frames(flow, most)
        assert inputs.wanted.most == most // 8
    else:
        with pytest.raises(InputError, match=message):
            inputs.fit_frames(flow, most)


def test_inputs_without_a_byte_fit_everywhere():
    inputs = TeacherInputs({"x": torch.zeros(4, 0)}, 4)
    inputs.fit_frames(Flow(), 1)
    assert inputs.wanted.most is None
