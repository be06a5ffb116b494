"""Batches that get no labels of their own: empty ones, and poison in a step that other ranks take too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from edldist import ElasticSampler
from edldist.errors import LabelError, PoisonTaskError
from edldist.wire.zmq.transport import ZmqTransport
from tests.forked import Program, outcomes_of
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)


def ids(*sizes: int) -> list[torch.Tensor]:
    """Batches of these sizes, whose ids count up."""
    numbers = torch.arange(100, 100 + sum(sizes))
    return list(numbers.split(sizes))


# --- empty batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 3), (3, 0, 0)])
@pytest.mark.parametrize("epochs", [None, 2])
def test_empty_batches_have_labels_without_rows_wherever_they_are(memory_job, sizes, epochs):
    memory_job.teacher("several_outputs")
    loader = memory_job.loader(ids(*sizes), inputs=lambda batch: {"id": batch}, epochs=epochs)
    for _ in range(2):
        seen = []
        for batch, labels in loader:
            seen.append(len(batch))
            assert {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in labels.items()} == {
                "logits": ((len(batch), 3), torch.float32),
                "feature": ((len(batch), 1, 1), torch.bfloat16),
                "index": ((len(batch),), torch.int32),
            }
        assert seen == list(sizes)
    assert loader.stats()["samples"] == 2 * sum(sizes)


def test_empty_batches_have_the_labels_of_every_teacher(memory_job):
    memory_job.teacher("identify_any", name="a")
    memory_job.teacher("positional", name="b")
    loader = memory_job.loader(ids(0, 3), teacher=("a", "b"))
    shapes = [{name: tuple(tensor.shape) for name, tensor in labels.items()} for _, labels in loader]
    assert shapes == [{"a/logits": (n, 2), "b/logits": (n, 1)} for n in (0, 3)]


def test_where_all_batches_are_empty_the_labels_say_why_they_have_no_names(memory_job):
    for _, labels in memory_job.loader(ids(0, 0)):
        assert not labels
        with pytest.raises(LabelError, match="no labels 'logits'.*if not labels: continue"):
            labels["logits"]


def test_a_teacher_that_sees_a_part_of_the_samples_labels_that_part_which_may_be_none(memory_job):
    """The second teacher sees even ids only: none of the first batch, where its labels have no rows."""
    memory_job.teacher("identify_any", name="a")
    memory_job.teacher("positional", name="b")
    data = [torch.tensor(numbers) for numbers in ([1, 3], [1, 2, 3, 4], [5], [6])]
    loader = memory_job.loader(
        data, teacher=("a", "b"), inputs={"a": None, "b": lambda batch: {"0": batch[batch % 2 == 0]}}
    )
    got = [(labels["a/logits"][:, 0].tolist(), labels["b/logits"].flatten().tolist()) for _, labels in loader]
    assert got == [([1, 3], []), ([1, 2, 3, 4], [2, 4]), ([5], []), ([6], [6])]
    assert loader.stats()["samples"] == 8


# --- poison in a step of several ranks ----------------------------------------------------------------


@pytest.fixture
def rank0_of_2(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")


def single(*numbers: int) -> list[torch.Tensor]:
    return [torch.tensor([number]) for number in numbers]


def steps(loader) -> list[tuple[int, int, float]]:
    """Sample, label and weight of each step."""
    return [(batch.item(), labels["logits"].item(), loader.loss_weight) for batch, labels in loader]


def spoiled(job, data, **options):
    job.teacher("raises_on_13")
    return job.loader(data, inputs=lambda batch: {"id": batch}, on_poison="skip", **options)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((13, 1, 2), [(1, 0.0), (1, 1.0), (2, 1.0)]),
        ((13, 13, 1), [(1, 0.0), (1, 0.0), (1, 1.0)]),
        ((1, 13, 2), [(1, 1.0), (1, 0.0), (2, 1.0)]),
        ((1, 2, 13), [(1, 1.0), (2, 1.0), (2, 0.0)]),
    ],
)
def test_a_poisoned_batch_is_a_step_with_another_one_that_counts_nothing(
    memory_job, rank0_of_2, numbers, expected
):
    loader = spoiled(memory_job, single(*numbers))
    assert steps(loader) == [(number, number, weight) for number, weight in expected]
    stats = loader.stats()
    assert (stats["samples"], stats["skipped"]) == (3 - numbers.count(13), numbers.count(13))


def test_what_the_loop_writes_to_a_stand_in_is_not_in_the_batch_itself(memory_job, rank0_of_2):
    loader = spoiled(memory_job, single(13, 1, 2))
    seen = []
    for batch, labels in loader:
        seen.append((batch.item(), labels["logits"].item()))
        batch += 50
        labels["logits"] += 50
    assert seen == [(1, 1), (1, 1), (2, 2)]


def test_the_position_is_that_of_the_poisoned_batch_while_the_next_one_stands_in(memory_job, rank0_of_2):
    sampler = ElasticSampler(8, 2, shuffle=False, rank=0, world_size=2)
    loader = spoiled(memory_job, DataLoader(torch.tensor([13, 0, 1, 0, 2, 0, 3, 0]), batch_sampler=sampler))
    assert [(batch.item(), sampler.samples) for batch, _ in loader] == [(1, 2), (1, 4), (2, 6), (3, 8)]


@pytest.mark.parametrize("epochs", [None, 3])
def test_a_resume_right_before_a_poisoned_last_batch_takes_a_batch_of_the_next_epoch(
    memory_job, rank0_of_2, epochs
):
    sampler = ElasticSampler(6, 2, shuffle=False, rank=0, world_size=2)
    data = DataLoader(torch.tensor([1, 0, 2, 0, 13, 0]), batch_sampler=sampler)
    loader = spoiled(memory_job, data, epochs=epochs)
    loader.load_state_dict({"sampler": sampler.state_dict() | {"samples": 4}})
    assert steps(loader) == [(1, 1, 0.0)]
    assert (loader.epoch, sampler.samples) == (1, 0)
    assert steps(loader) == [(1, 1, 1.0), (2, 2, 1.0), (2, 2, 0.0)]
    assert (loader.stats()["discarded"] > 0) == (epochs is None)


def test_poison_is_raised_where_no_batch_can_stand_in(memory_job, rank0_of_2):
    with pytest.raises(PoisonTaskError, match="sample 13 is poison on purpose"):
        next(iter(spoiled(memory_job, iter(single(13)))))


def test_data_without_end_of_which_no_batch_can_be_labelled_is_not_read_for_ever(memory_job, rank0_of_2):
    reads = []

    def endless():
        while True:
            reads.append(1)
            yield torch.tensor([13])

    with pytest.raises(PoisonTaskError):
        next(iter(spoiled(memory_job, endless(), high_watermark=4)))
    assert len(reads) < 200  # what stands in is looked for among a bounded number of batches


def test_an_error_of_the_data_loader_behind_poison_comes_in_its_turn(memory_job, rank0_of_2):
    def broken():
        yield from single(13, 1)
        raise FileNotFoundError("shard 3 is gone")

    loader, seen = spoiled(memory_job, broken()), []
    with pytest.raises(FileNotFoundError, match="shard 3"):
        for batch, _ in loader:
            seen.append((batch.item(), loader.loss_weight))
    assert seen == [(1, 0.0), (1, 1.0)]


# --- what the ranks agree on ----------------------------------------------------------------------

RANK = """
import json, sys
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader
import edldist
address, meeting, case = sys.argv[1], sys.argv[2], sys.argv[5]
rank, world = int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
options = json.loads(sys.argv[6])

def without_odd_tens(items):
    return torch.tensor([item for item in items if item not in (20, 21, 30)])

if case == "uneven":
    data = [torch.arange(2)] * (3 + rank)
else:
    sampler = edldist.ElasticSampler(44, 8, shuffle=False)
    data = DataLoader(range(44), batch_sampler=sampler, collate_fn=without_odd_tens)
loader = edldist.DistillLoader(
    data, inputs=lambda batch: {"id": batch}, coordinator=address, on_poison="skip", **options
)
if case == "resumed":  # the very first batch of rank 1 is poison
    loader.load_state_dict({"sampler": sampler.state_dict() | {"samples": 8}})
means = []
try:
    for batch, labels in loader:
        assert torch.equal(labels["logits"].flatten(), batch), (batch, labels)
        mean = loader.loss_weight * batch.double().mean()  # what DDP does with gradients
        dist.all_reduce(mean)
        means.append(mean.item() / world)
except edldist.errors.InputError as exc:
    means = str(exc)
print(json.dumps(means))
loader.close()
dist.destroy_process_group()
"""


def run_ranks(tmp_path: Path, case: str, **options: bool) -> list:
    """The global batches' means as two ranks see them."""
    with local_job(ZmqTransport()) as job:
        for _ in range(2):
            job.teacher("raises_on_13", batch_size=8)
        ranks = [
            Program(
                *(RANK, job.address, str(tmp_path / "meet"), str(rank), "2", case, json.dumps(options)),
                environment=os.environ,
            )
            for rank in range(2)
        ]
        outputs = [output for output, _ in outcomes_of(ranks, 90)]
        assert [rank.returncode for rank in ranks] == [0, 0]
        assert job.errors == []
        return [json.loads(output.splitlines()[-1]) for output in outputs]


def mean(numbers) -> float:
    return sum(numbers) / len(numbers)


@pytest.mark.parametrize("case", ["whole", "resumed"])
def test_agreed_weights_make_the_mean_over_the_samples_that_were_labelled(tmp_path, case):
    """12 to 15, of rank 1, are poison; 20, 21 and 30 are left out by the collate function."""
    of_all = [[n for n in range(at, min(at + 8, 44)) if n not in (20, 21, 30)] for at in range(0, 44, 8)]
    of_all[1] = [8, 9, 10, 11]
    expected = [pytest.approx(mean(numbers), abs=1e-12) for numbers in of_all[case == "resumed" :]]
    assert run_ranks(tmp_path, case, agree_weights=True) == [expected, expected]


def test_ranks_that_agree_do_not_wait_for_those_that_have_no_batch_left(tmp_path):
    told = run_ranks(tmp_path, "uneven", agree_weights=True)
    assert all("1 of 2 ranks have no batch left" in each and "agree_weights" in each for each in told)
