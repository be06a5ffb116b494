"""Samples that go to one of several teachers, and come back as if there had been one."""

from __future__ import annotations

import random

import pytest
import torch

from edldist import Sequences
from edldist.errors import InputError, LabelError, PoisonTaskError
from edldist.student.loader import DistillLoader
from tests.integration.test_sequences import batches

pytestmark = pytest.mark.timeout(240)

NAMES = ("law", "code", "verse")
BY = dict(zip(NAMES, (100.0, 200.0, 300.0), strict=True))


def teach(job, model: str = "shifted", names: tuple[str, ...] = NAMES, **options) -> None:
    for name in names:
        job.teacher(model, name=name, model_args={"by": BY[name]}, **options)


def data(count: int, seed: int = 0) -> list[dict[str, object]]:
    chance = random.Random(seed)
    made, at = [], 0
    for _ in range(count):
        size = chance.randint(0, 9)
        made.append(
            {
                "id": torch.arange(at, at + size),
                "domain": [chance.choice(NAMES) for _ in range(size)],
            }
        )
        at += size
    return made


def check(batch, labels) -> None:
    ids = batch["id"].double()
    by = torch.tensor([BY[name] for name in batch["domain"]], dtype=torch.float64)
    assert labels.keys() == {"logits"}
    assert torch.equal(labels["logits"], torch.stack([ids, ids + by], dim=1))


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"task_size": 2}, {"max_bytes": 1}])
def test_labels_come_back_in_the_order_of_the_batch(job, options):
    for size in (1, 5):
        teach(job, batch_size=size)
    made = data(60)
    loader = job.loader(made, "id", teacher=NAMES, route="domain", **options)
    got = list(loader)
    assert [batch is not None for batch, _ in got] == [True] * len(made)
    for original, (batch, labels) in zip(made, got, strict=True):
        assert torch.equal(batch["id"], original["id"])
        check(batch, labels)
    assert loader.stats()["samples"] == sum(len(batch["id"]) for batch in made)


def test_a_teacher_gets_its_own_samples_only(memory_job):
    teach(memory_job)
    made = data(40, seed=3)
    list(memory_job.loader(made, "id", teacher=NAMES, route=lambda batch: batch["domain"]))
    for worker in memory_job.workers:
        own = sum(batch["domain"].count(worker._options.name) for batch in made)
        assert worker.service._ledger.samples == own > 0


def test_typed_labels_are_one_set_too(memory_job):
    for name, vocabulary in zip(NAMES, (300, 300, 300), strict=True):
        memory_job.teacher("scores", name=name, model_args={"vocabulary": vocabulary}, codec="topk:3")
    made = [{"ids": torch.tensor([5, 250, 9, 77]), "domain": [2, 0, 2, 1]}]
    for batch, labels in memory_job.loader(made, "ids", teacher=NAMES, route="domain", codec="topk:3"):
        assert labels["logits"].ids[:, 0].tolist() == batch["ids"].tolist()
        assert labels["logits"].vocabulary == 300


def test_sequences_are_routed_and_put_back(job):
    teach(job, "shifted_tokens", batch_size=16)
    made, chance = batches(40), random.Random(2)
    for batch in made:
        batch["domain"] = torch.tensor([chance.randrange(3) for _ in batch["ids"]])
    loader = job.loader(made, Sequences("ids", mask="real", asked="wanted"), teacher=NAMES, route="domain")
    for batch, labels in loader:
        mask = batch["real"] & batch["wanted"].bool()
        assert torch.equal(labels["mask"], mask)
        sums = (batch["ids"] * batch["real"]).sum(1, keepdim=True).expand_as(batch["ids"])
        by = torch.tensor([100.0, 200.0, 300.0])[batch["domain"]].unsqueeze(1)
        expected = torch.stack([batch["ids"], sums + by], dim=-1).float()
        assert torch.equal(labels["logits"][mask], expected[mask])
        assert labels["logits"][~mask].isnan().all()


def test_a_domain_without_a_teacher_is_said_when_its_batch_is_due_and_nothing_is_lost(memory_job):
    teach(memory_job)
    made = data(6, seed=5)
    made[3] = {"id": torch.tensor([7, 8]), "domain": ["law", "art"]}
    loader = memory_job.loader(made, "id", teacher=NAMES, route="domain")
    seen = []
    with pytest.raises(
        InputError, match="route='domain' gives sample 1 to 'art', and the teachers are 'law'"
    ):
        for batch, labels in loader:
            check(batch, labels)
            seen.append(batch)
    assert len(seen) == 3
    position = loader.state_dict()
    made[3]["domain"] = ["law", "verse"]  # mended
    loader.load_state_dict(position)
    rest = list(loader)
    assert len(rest) == 3
    for batch, labels in rest:
        check(batch, labels)


def test_teachers_that_differ_are_refused_with_both_sides(memory_job):
    memory_job.teacher("shifted", name="law")
    memory_job.teacher("scores", name="code", model_args={"vocabulary": 7})
    memory_job.teacher("several_outputs", name="verse")
    made = [{"id": torch.arange(2), "ids": torch.arange(2), "domain": ["law", "code"]}]
    inputs = {"law": "id", "code": "ids", "verse": "id"}
    said = (
        r"teacher 'law' \(codec dense\) is float64\[N, 2\], and that of teacher 'code' \(codec dense\) is "
        r"float32\[N, 7\]"
    )
    with pytest.raises(LabelError, match=said):
        list(memory_job.loader(made, inputs, teacher=NAMES, route="domain"))
    made[0]["domain"] = ["verse", "law"]
    with pytest.raises(LabelError, match=r"has outputs \['logits'\] and teacher 'verse' has"):
        list(memory_job.loader(made, inputs, teacher=NAMES, route="domain"))


def test_a_teacher_without_workers_is_waited_for_by_its_own_samples_only(memory_job):
    teach(memory_job, names=("law", "code"))
    made = [{"id": torch.arange(3), "domain": ["law", "code", "law"]}] * 4
    assert len(list(memory_job.loader(made, "id", teacher=NAMES, route="domain"))) == 4


def test_the_state_of_a_routed_loader_differs_by_rank(memory_job, monkeypatch):
    """A rank may not have met every teacher yet."""
    teach(memory_job, names=("law", "code"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = [{"id": torch.arange(3), "domain": ["law"] * 3}]
    loader: DistillLoader = memory_job.loader(made, "id", teacher=NAMES, route="domain")
    list(loader)
    assert "teachers" not in loader.state_dict()
    assert loader.rank_state_dict()["teachers"].keys() == {"law"}


def test_poison_is_named_by_its_places_in_the_batch(memory_job):
    memory_job.teacher("raises_on_13", name="law")
    memory_job.teacher("identify", name="code")
    made = [{"id": torch.tensor([1, 13, 2, 13, 5]), "domain": ["code", "law", "code", "law", "law"]}]
    with pytest.raises(PoisonTaskError, match="could not label samples 1, 3, 4 of batch 0") as caught:
        list(memory_job.loader(made, "id", teacher=("law", "code"), route="domain"))
    assert list(caught.value.samples) == [1, 3, 4]


def test_poison_among_sequences_is_named_by_its_place_in_the_batch(memory_job):
    """Of the sequences before it nothing was asked, and the teacher never saw them."""
    memory_job.teacher("raises_on_token_13", batch_size=64)
    ids = torch.tensor([[20, 21], [22, 23], [24, 13]])
    made = [{"ids": ids, "wanted": torch.tensor([[0, 0], [0, 1], [1, 1]])}]
    with pytest.raises(PoisonTaskError, match=r"samples 1\.\.2 of batch 0"):
        list(memory_job.loader(made, Sequences("ids", asked="wanted")))
