"""Small tasks travel in shared frames, large ones as views, and each is where its group says."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edldist.labels.grammar import parse_spec
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.grouping import group
from edldist.student.queue.outcomes import Grant
from edldist.wire.tensors import unpack


def opened(samples: int, width: int = 3, name: str = "x", first: int = 0) -> OpenBatch:
    values = torch.arange(first, first + samples * width, dtype=torch.int32).reshape(samples, width)
    return OpenBatch(None, {name: values, "id": torch.arange(first, first + samples)}, samples)


def granted(lease: int, batch: OpenBatch, start: int = 0, stop: int | None = None) -> Grant:
    stop = batch.samples if stop is None else stop
    return Grant(lease, "t", lease, start, stop, cost=stop - start, own_pass=False, pieces=())


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 3, 4000])), min_size=1, max_size=8))
def test_every_task_finds_its_own_rows(shapes):
    batches = [opened(samples, width, first=100 * n) for n, (samples, width) in enumerate(shapes)]
    grants = [granted(n, batch) for n, batch in enumerate(batches)]
    groups, frames = group(grants, batches, 1 << 30)
    seen = 0
    for one in groups:
        own = [frames.pop(0) for _ in one.tensors]
        tensors = unpack(one.tensors, own)
        start = 0
        for task in one.leases:
            batch = batches[task.id]
            rows = {name: tensor[start : start + task.samples] for name, tensor in tensors.items()}
            expected = opened(*shapes[task.id], first=100 * task.id)
            assert task.id == seen and task.samples == batch.samples
            assert [bytes(view) for view in expected.inputs_of("t").cut(0, task.samples)] == [
                rows[name].contiguous().view(torch.uint8).numpy().tobytes() for name in rows
            ]
            start += task.samples
            seen += 1
    assert seen == len(batches) and not frames


def test_small_tasks_share_their_frames_and_large_ones_are_views():
    small = [opened(2), opened(3, first=50)]
    groups, frames = group([granted(n, batch) for n, batch in enumerate(small)], small, 1 << 30)
    assert [[task.id for task in one.leases] for one in groups] == [[0, 1]] and len(frames) == 2
    large = [opened(64, 1000), opened(64, 1000)]
    groups, frames = group([granted(n, batch) for n, batch in enumerate(large)], large, 1 << 30)
    assert len(groups) == 2 and len(frames) == 4
    assert (
        torch.frombuffer(frames[0], dtype=torch.uint8).data_ptr()
        == torch.frombuffer(large[0].inputs_of("t").cut(0, 64)[0], dtype=torch.uint8).data_ptr()
    )


def test_tasks_of_other_names_or_shapes_are_groups_of_their_own():
    batches = [opened(2), opened(2, name="y"), opened(2, width=5), opened(2, width=5)]
    groups, _ = group([granted(n, batch) for n, batch in enumerate(batches)], batches, 1 << 30)
    assert [[task.id for task in one.leases] for one in groups] == [[0], [1], [2, 3]]


def test_a_part_of_a_batch_is_cut_where_its_lease_says():
    batch = opened(6)
    groups, frames = group([granted(0, batch, 1, 3), granted(1, batch, 4, 6)], [batch, batch], 1 << 30)
    ids = unpack(groups[0].tensors, frames)["id"]
    assert ids.tolist() == [1, 2, 4, 5]


def test_small_tasks_share_no_frame_that_would_be_larger_than_a_frame_may_be():
    batches = [OpenBatch(None, {"x": torch.zeros(4, dtype=torch.int64)}, 4) for _ in range(5)]
    groups, frames = group([granted(n, batch) for n, batch in enumerate(batches)], batches, 64)
    assert [len(each.leases) for each in groups] == [2, 2, 1]
    assert [memoryview(frame).nbytes for frame in frames] == [64, 64, 32]


def test_tasks_whose_labels_are_asked_for_in_another_codec_are_a_group_of_their_own():
    batches = [opened(2), opened(2), opened(2), opened(2)]
    batches[1].codec = batches[2].codec = parse_spec("topk:4")
    groups, _ = group([granted(n, batch) for n, batch in enumerate(batches)], batches, 1 << 30)
    assert [([lease.id for lease in one.leases], str(one.codec)) for one in groups] == [
        ([0], "None"),
        ([1, 2], "topk:4"),
        ([3], "None"),
    ]
