"""Held tasks share forward passes where they fit, and each runs once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edldist.labels.grammar import parse_spec
from edldist.teacher.service.batcher import Batcher
from edldist.teacher.tasks import HeldTask, TaskInputs
from edldist.wire.messages import TensorSpec


def task(
    lease: int, samples: int, student="s", own_pass=False, name="x", dtype="int64", row=(3,)
) -> HeldTask:
    spec = TensorSpec(name=name, dtype=dtype, shape=[samples, *row])
    return HeldTask(
        student, lease, samples, samples, own_pass, TaskInputs(samples, [spec], [memoryview(b"")]), 0
    )


def smaller(held: HeldTask, codec: str) -> HeldTask:
    return replace(held, inputs=replace(held.inputs, codec=parse_spec(codec)))


def batcher(batch_size: int, *tasks: HeldTask) -> Batcher:
    made = Batcher(batch_size)
    for held in tasks:
        made.add(held)
    return made


def passes(made: Batcher) -> list[list[int]]:
    taken = []
    while tasks := made.take():
        taken.append([held.lease for held in tasks])
    return taken


@given(
    st.lists(st.tuples(st.integers(1, 20), st.booleans(), st.sampled_from(["x", "y"])), max_size=30),
    st.integers(1, 16),
)
def test_every_task_runs_once_in_passes_that_fit(shapes, batch_size):
    tasks = [task(n, size, own_pass=own_pass, name=name) for n, (size, own_pass, name) in enumerate(shapes)]
    made = batcher(batch_size, *tasks)
    seen = []
    while taken := made.take():
        assert len(taken) == 1 or sum(held.samples for held in taken) <= batch_size
        assert len(taken) == 1 or not any(held.own_pass for held in taken)
        assert len({held.inputs.tensors[0].name for held in taken}) == 1
        seen += taken
    assert sorted(held.lease for held in seen) == list(range(len(tasks)))


def test_small_tasks_of_several_students_share_a_pass():
    made = batcher(8, task(1, 3), task(2, 3, student="t"), task(3, 3), task(4, 2))
    assert passes(made) == [[1, 2, 4], [3]]


def test_tasks_of_other_names_dtypes_or_shapes_wait_for_their_own_pass():
    made = batcher(
        64, task(1, 2), task(2, 2, name="y"), task(3, 2, dtype="int8"), task(4, 2, row=(4,)), task(5, 4)
    )
    assert passes(made) == [[1, 5], [2], [3], [4]]


def test_a_task_that_asks_for_it_runs_alone():
    assert passes(
        batcher(64, task(1, 2, own_pass=True), task(2, 2), task(3, 2, own_pass=True), task(4, 2))
    ) == [
        [1],
        [2, 4],
        [3],
    ]


def test_a_task_larger_than_the_batch_size_runs_by_itself():
    assert passes(batcher(4, task(1, 9), task(2, 1))) == [[1], [2]]


def test_withdrawn_tasks_do_not_run():
    made = batcher(64, task(1, 2), task(1, 2, student="t"), task(2, 2))
    assert [held.lease for held in made.withdraw("s")] == [1, 2]
    assert len(made) == 1
    assert [held.student for held in made.withdraw()] == ["t"]
    assert made.take() == []


def test_labels_of_one_pass_travel_in_one_codec():
    int8, top = (smaller(task(n, 2, student=f"s{n}"), codec) for n, codec in ((2, "int8"), (3, "topk:4")))
    made = batcher(64, task(1, 2), int8, top, smaller(task(4, 2), "int8"), task(5, 2))
    assert passes(made) == [[1, 5], [2, 4], [3]]
