"""Padded sequences through real workers, whose labels come back at the positions of their tokens."""

from __future__ import annotations

import random

import pytest
import torch

from edldist import Sequences
from edldist.errors import InputError, PoisonTaskError
from edldist.lifecycle import stopping

pytestmark = pytest.mark.timeout(240)


def batches(count: int, seed: int = 0, asked: bool = True) -> list[dict[str, torch.Tensor]]:
    """Padded on either side, some samples all padding, some without a token that is asked for."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        samples, width = chance.randint(1, 6), chance.randint(2, 9)
        ids = torch.zeros(samples, width, dtype=torch.int64)
        real, wanted = (
            torch.zeros(samples, width, dtype=torch.bool),
            torch.zeros(samples, width, dtype=torch.int64),
        )
        for row in range(samples):
            length, left = chance.randint(0, width), chance.random() < 0.5
            where = slice(width - length, width) if left else slice(0, length)
            ids[row, where] = torch.tensor([chance.randint(20, 99) for _ in range(length)], dtype=torch.int64)
            real[row, where] = True
            wanted[row] = torch.tensor([chance.random() < 0.4 for _ in range(width)])
        made.append({"ids": ids, "real": real, "wanted": wanted if asked else torch.zeros_like(wanted)})
    return made


def check(batch, labels, mask) -> None:
    assert torch.equal(labels["mask"], mask)
    sums = (batch["ids"] * batch["real"]).sum(1, keepdim=True).expand_as(batch["ids"])
    expected = torch.stack([batch["ids"], sums], dim=-1).float()
    assert torch.equal(labels["logits"][mask], expected[mask])
    assert labels["logits"].shape == expected.shape and labels["logits"][~mask].isnan().all()


@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"task_size": 2}])
def test_labels_come_back_at_their_positions(job, options):
    for size in (1, 7, 64):
        job.teacher("token_sums", batch_size=size)
    data = batches(60)
    loader = job.loader(data, Sequences("ids", mask="real", asked="wanted"), **options)
    got = list(loader)
    assert len(got) == len(data)
    for batch, labels in got:
        check(batch, labels, batch["real"] & batch["wanted"].bool())
    assert loader.stats()["samples"] == sum(len(batch["ids"]) for batch in data)


def test_one_label_of_each_sequence(job):
    job.teacher("sequence_sums", batch_size=16)
    for batch, labels in job.loader(batches(20), Sequences("ids", mask="real", whole=True)):
        there = batch["real"].any(1)
        assert torch.equal(labels["mask"], there)
        assert torch.equal(labels["logits"][there, 0], batch["ids"].sum(1)[there].float())
        assert labels["logits"].shape == (len(there), 1) and labels["logits"][~there].isnan().all()


def test_poison_is_named_by_its_place_in_the_batch_whatever_else_was_asked(memory_job):
    memory_job.teacher("raises_on_token_13", batch_size=64)
    ids = torch.tensor([[20, 21], [22, 23], [13, 24], [25, 13]])
    asked = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1]])
    loader = memory_job.loader([{"ids": ids, "asked": asked}], Sequences("ids", asked="asked"), task_size=1)
    with pytest.raises(PoisonTaskError, match=r"could not label samples 3\.\.3 of batch 0") as caught:
        next(iter(loader))
    assert list(caught.value.samples) == [3]


def test_a_batch_of_which_nothing_is_asked_has_labels_of_its_shape(job):
    job.teacher("token_sums", batch_size=16)
    data = [*batches(3, asked=False), *batches(3), *batches(2, seed=1, asked=False)]
    got = list(job.loader(data, Sequences("ids", mask="real", asked="wanted")))
    assert len(got) == len(data)
    for batch, labels in got:
        check(batch, labels, batch["real"] & batch["wanted"].bool())


def test_who_is_asked_to_stop_before_labels_have_a_shape_leaves(memory_job, monkeypatch):
    """Nothing more is read then, so nothing that is waited for will come."""
    memory_job.teacher("token_sums", batch_size=16)
    monkeypatch.setattr("edldist.student.loop.waiting._STOP_STARVED_S", 0.1)
    monkeypatch.setattr(stopping, "_request", request := stopping.StopRequest())
    request.asked = True
    data = [*batches(3, asked=False), *batches(3)]
    with pytest.raises(SystemExit) as left:
        list(memory_job.loader(data, Sequences("ids", mask="real", asked="wanted")))
    assert left.value.code == 0


def test_where_nothing_is_ever_asked_the_mask_says_so(memory_job):
    memory_job.teacher("token_sums", batch_size=16)
    data = batches(4, asked=False)
    for batch, labels in memory_job.loader(data, Sequences("ids", mask="real", asked="wanted")):
        assert list(labels) == ["mask"] and torch.equal(labels["mask"], torch.zeros_like(batch["real"]))


def test_another_teacher_may_see_other_parts_of_the_batch(job):
    job.teacher("token_sums", name="tokens", batch_size=16)
    job.teacher("identify", name="whole", batch_size=4)
    inputs = {"tokens": Sequences("ids", mask="real"), "whole": lambda batch: {"id": batch["ids"][:, 0]}}
    for batch, labels in job.loader(batches(20), inputs, teacher=("tokens", "whole")):
        mine = {name.removeprefix("tokens/"): value for name, value in labels.items() if "tokens/" in name}
        check(batch, mine, batch["real"])
        assert torch.equal(labels["whole/logits"][:, 0], batch["ids"][:, 0].float())


def test_a_sequence_that_the_model_refuses_fails_alone(memory_job):
    memory_job.teacher("raises_on_token_13", batch_size=64)
    data = batches(6)
    data[3]["ids"][:] = 13
    data[3]["real"][:] = True
    loader = memory_job.loader(data, Sequences("ids", mask="real"))
    got = []
    with pytest.raises(PoisonTaskError, match="thirteen"):
        for batch, labels in loader:
            check(batch, labels, batch["real"])
            got.append(batch)
    assert len(got) == 3


def test_a_batch_without_the_entry_is_refused(memory_job):
    memory_job.teacher("token_sums")
    with pytest.raises(InputError, match="inputs='nothing': the batch has no such entry"):
        next(iter(memory_job.loader(batches(1), Sequences("nothing"))))


def test_probabilities_at_ids_that_go_along(job):
    job.teacher("token_sums", batch_size=32, codec="gather")
    data = batches(20)
    for batch in data:
        batch["gather_ids"] = torch.stack([batch["ids"] % 2, torch.ones_like(batch["ids"])], dim=-1)
    inputs = Sequences(("ids", "gather_ids"), mask="real", asked="wanted")
    for batch, labels in job.loader(data, inputs):
        mask = batch["real"] & batch["wanted"].bool()
        assert torch.equal(labels["mask"], mask)
        sums = (batch["ids"] * batch["real"]).sum(1, keepdim=True).expand_as(batch["ids"])
        log_p = torch.stack([batch["ids"], sums], dim=-1).float().log_softmax(-1)
        got = labels["logits"].log_probs
        assert got.shape == (*batch["ids"].shape, 2) and got[~mask].isnan().all()
        expected = log_p.gather(-1, batch["gather_ids"])
        torch.testing.assert_close(got[mask].exp(), expected[mask].exp(), atol=2e-3, rtol=0)
