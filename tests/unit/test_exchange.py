"""A pass's inputs are the frames' own memory where they lie together, and its labels go back by lease."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import WireError
from edldist.teacher.exchange import answers_to, inputs_of
from edldist.teacher.tasks import HeldTask, TaskInputs
from edldist.wire.messages import TensorSpec
from edldist.wire.tensors import pack, unpack


def arrived(*sizes: int, student: str = "s", first_lease: int = 1, first: int = 0) -> list[HeldTask]:
    """Tasks of one group, whose samples are numbered from ``first`` on."""
    specs, frames = pack({"x": torch.arange(first, first + sum(sizes))})
    inputs = TaskInputs(sum(sizes), specs, [memoryview(bytearray(frame)) for frame in frames])
    tasks, start = [], 0
    for number, size in enumerate(sizes):
        tasks.append(HeldTask(student, first_lease + number, size, size, False, inputs, start))
        start += size
    return tasks


def sent(answers) -> dict[int, list[int]]:
    """What each lease got, from the answers as a student reads them."""
    got = {}
    for answer in answers:
        values = unpack(answer.result.tensors, answer.frames)["y"]
        start = 0
        for row in answer.result.rows:
            got[row.lease] = values[start : start + row.count].tolist()
            start += row.count
        assert start == len(values)
    return got


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_every_lease_gets_the_labels_of_its_own_samples(groups, data):
    held = []
    for number, sizes in enumerate(groups):
        student = data.draw(st.sampled_from("st"))
        held += arrived(*sizes, student=student, first_lease=10 * number, first=100 * number)
    tasks = data.draw(st.permutations(held))
    inputs = inputs_of(tasks)["x"]
    got = sent(answers_to(tasks, {"y": inputs * 2}, "dense", 0.0, lambda student: None))
    for task in held:
        own = unpack(task.inputs.tensors, task.inputs.frames)["x"][task.start : task.start + task.samples]
        assert got[task.lease] == (own * 2).tolist()


def test_tasks_that_lie_back_to_back_are_not_copied():
    tasks = arrived(2, 3, 4)
    address = torch.frombuffer(tasks[0].inputs.frames[0], dtype=torch.uint8).data_ptr()
    assert inputs_of(tasks)["x"].data_ptr() == address
    assert inputs_of(tasks[1:])["x"].data_ptr() == address + 2 * 8
    assert inputs_of([tasks[0], tasks[2]])["x"].tolist() == [0, 1, 5, 6, 7, 8]


def test_one_answer_covers_all_tasks_of_a_student_in_a_row():
    tasks = arrived(2, 3) + arrived(1, student="t", first_lease=9)
    answers = answers_to(tasks, {"y": torch.zeros(6)}, "dense", 0.5, lambda student: None)
    assert [[task.lease for task in answer.tasks] for answer in answers] == [[1, 2], [9]]
    assert all(answer.result.compute_s == 0.5 for answer in answers)


def test_labels_that_fit_no_frame_together_are_sent_one_by_one_and_fail_alone():
    tasks = arrived(2, 3, 1)
    answers = answers_to(tasks, {"y": torch.zeros(6, dtype=torch.float64)}, "dense", 0.0, lambda student: 16)
    assert [answer.tasks[0].lease for answer in answers] == [1, 2, 3]
    assert [answer.result is None for answer in answers] == [False, True, False]
    assert "24 bytes" in answers[1].error


@pytest.mark.parametrize("samples", [2, 4])
def test_inputs_of_another_size_than_their_tasks_are_refused(samples):
    specs, frames = pack({"x": torch.zeros(3)})
    inputs = TaskInputs(samples, specs, frames)
    with pytest.raises(WireError, match=f"tasks of {samples} rows"):
        inputs_of([HeldTask("s", 1, samples, samples, False, inputs, 0)])


def test_tasks_of_samples_with_lengths_are_answered_by_rows():
    frame = memoryview(bytearray(torch.arange(9).numpy().tobytes()))
    inputs = TaskInputs(9, [TensorSpec(name="x", dtype="int64", shape=[9])], [frame])
    tasks = [HeldTask("s", 1, 2, 5, False, inputs, 0), HeldTask("s", 3, 1, 4, False, inputs, 5)]
    assert inputs_of(tasks[1:])["x"].tolist() == [5, 6, 7, 8]
    (answer,) = answers_to(tasks, {"y": inputs_of(tasks)["x"]}, "", 0.0, lambda student: None)
    assert answer.result is not None
    assert [(row.lease, row.count) for row in answer.result.rows] == [(1, 5), (3, 4)]
