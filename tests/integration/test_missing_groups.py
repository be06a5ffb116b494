"""A teacher group without a worker for a while: batches wait for it, or go on without."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch

from edldist import Sequences, losses
from edldist.errors import LabelError
from tests.models import shifted

pytestmark = pytest.mark.timeout(240)


class Endless:
    """Batches of four numbered samples, until it is told to end."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.ended = False
        self._most = most

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for number in range(self._most):
            if self.ended:
                return
            yield {"id": torch.arange(4 * number, 4 * number + 4)}


def leave(job, name: str) -> None:
    """The workers of a group leave, and are gone."""
    for worker in list(job.workers):
        if worker._options.name == name:
            worker.drain()
            job.workers.remove(worker)
            while worker.worker_id in job._coordinator._members.members:
                time.sleep(0.01)


def check(batch, labels, teacher: str, by: float) -> bool:
    """Labels are right, or there are none of the whole batch; whether there are some."""
    mask = labels[f"{teacher}/mask"]
    assert mask.dtype == torch.bool and mask.shape == (4,) and len(set(mask.tolist())) == 1
    if not mask[0]:
        assert f"{teacher}/logits" not in labels or labels[f"{teacher}/logits"].isnan().all()
        return False
    assert torch.equal(labels[f"{teacher}/logits"], shifted(by)(batch["id"]))
    return True


def until(loop: Iterator, happens: Callable[[dict, dict], bool]) -> tuple[dict, dict]:
    return next((batch, labels) for batch, labels in loop if happens(batch, labels))


def test_batches_go_on_without_a_group_that_is_gone_and_with_it_when_it_is_back(job, caplog):
    """It leaves and comes back in mid-run: order is kept, and nothing is said twice."""
    caplog.set_level(logging.WARNING, "edldist")
    job.teacher("shifted", name="a", model_args={"by": 1.0})
    job.teacher("shifted", name="b", model_args={"by": 2.0})
    data = Endless()
    options = {"missing": {"a": "skip"}, "missing_after_s": 0.3, "high_watermark": 3}
    loader = job.loader(data, "id", teacher=("a", "b"), **options)
    seen: list[int] = []
    missed = 0

    def taken() -> Iterator[tuple[dict, dict]]:
        nonlocal missed
        for batch, labels in loader:
            assert torch.equal(labels["b/logits"], shifted(2.0)(batch["id"]))
            assert "b/mask" not in labels
            missed += 0 if check(batch, labels, "a", 1.0) else 4
            seen.extend(batch["id"].tolist())
            yield batch, labels

    loop = taken()
    until(loop, lambda batch, labels: len(seen) >= 40)
    leave(job, "a")
    for _ in range(30):
        until(loop, lambda batch, labels: not labels["a/mask"][0])
    # As another teacher would see it, of the shape and dtype that labels had before.
    batch, labels = until(loop, lambda batch, labels: not labels["a/mask"][0])
    assert labels["a/logits"].shape == (4, 2) and labels["a/logits"].dtype == torch.float64
    job.teacher("shifted", name="a", model_args={"by": 1.0})
    for _ in range(30):
        until(loop, lambda batch, labels: bool(labels["a/mask"][0]))
    until(loop, lambda batch, labels: "teacher 'a' is back after" in caplog.text)  # by the next look
    data.ended = True
    list(loop)
    assert seen == list(range(len(seen)))
    assert loader.stats()["missed"] == missed > 0
    assert caplog.text.count("teacher 'a' has had no worker for") == 1
    assert caplog.text.count("teacher 'a' is back after") == 1


def test_a_group_that_was_never_there_is_a_mask_only(memory_job):
    memory_job.teacher("shifted", name="b")
    loader = memory_job.loader(
        Endless(3), "id", teacher=("a", "b"), missing={"a": "skip"}, missing_after_s=0.2
    )
    for batch, labels in loader:
        assert not check(batch, labels, "a", 0.0)
        assert labels.keys() == {"a/mask", "b/logits"}
        with pytest.raises(LabelError, match="no labels 'a/logits' .* a teacher is missing"):
            labels["a/logits"]
        student = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
        loss = losses.ensemble(student, labels, {"a": 0.9, "b": 0.1})
        assert torch.equal(loss, losses.forward_kl(student, labels["b/logits"]))
    assert loader.stats()["missed"] == 12


def test_a_batch_never_goes_on_without_any_labels(memory_job):
    """With nobody left the loop waits, whatever may be skipped."""
    loader = memory_job.loader(
        Endless(4), "id", teacher=("a", "b"), missing="skip", missing_after_s=0.2, high_watermark=3
    )
    got: list[bool] = []
    some = threading.Event()

    def loop() -> None:
        for batch, labels in loader:
            assert not check(batch, labels, "a", 0.0)
            got.append(check(batch, labels, "b", 0.0))
            some.set()

    thread = threading.Thread(target=loop)
    thread.start()
    assert not some.wait(1.5)
    memory_job.teacher("shifted", name="b")
    thread.join(60)
    assert got == [True] * 4


def test_by_default_a_group_is_waited_for(memory_job):
    memory_job.teacher("shifted", name="b")
    loader = memory_job.loader(Endless(1), "id", teacher=("a", "b"))
    loop = iter(loader)
    threading.Timer(1.0, lambda: memory_job.teacher("shifted", name="a")).start()
    _, labels = next(loop)
    assert labels.keys() == {"a/logits", "b/logits"} and loader.stats()["missed"] == 0


def test_samples_that_are_routed_to_a_missing_teacher_are_masked(memory_job):
    memory_job.teacher("shifted", name="b", model_args={"by": 2.0})
    loader = memory_job.loader(
        Endless(5),
        "id",
        teacher=("a", "b"),
        route=lambda batch: (batch["id"] % 2).tolist(),
        missing={"a": "skip"},
        missing_after_s=0.2,
    )
    for batch, labels in loader:
        assert labels["mask"].tolist() == [False, True, False, True]
        odd = labels["mask"]
        assert torch.equal(labels["logits"][odd], shifted(2.0)(batch["id"][odd]))
        assert labels["logits"][~odd].isnan().all()
    assert loader.stats()["missed"] == 10


def test_sequences_without_a_missing_teacher_keep_their_shape(memory_job):
    memory_job.teacher("shifted_tokens", name="a", batch_size=64)
    memory_job.teacher("shifted_tokens", name="b", batch_size=64)
    data = Endless()
    ids = torch.tensor([[20, 21, 22], [23, 0, 0]])
    loader = memory_job.loader(
        map(lambda _: {"ids": ids}, data),
        Sequences("ids", mask=lambda batch: batch["ids"] != 0),
        teacher=("a", "b"),
        missing={"a": "skip"},
        missing_after_s=0.2,
    )
    loop = iter(loader)
    _, labels = next(loop)
    assert torch.equal(labels["a/mask"], ids != 0)
    leave(memory_job, "a")
    _, labels = until(loop, lambda batch, labels: not labels["a/mask"].any())
    assert labels["a/mask"].shape == (2, 3) and labels["a/logits"].shape == (2, 3, 2)
    assert labels["a/logits"].isnan().all() and torch.equal(labels["b/mask"], ids != 0)
    data.ended = True
    list(loop)


def test_an_output_of_the_name_of_the_mask_is_refused(memory_job):
    memory_job.teacher("shifted", name="b")
    memory_job.teacher("says_mask", name="a")
    loader = memory_job.loader(Endless(1), "id", teacher=("a", "b"), missing={"a": "skip"})
    with pytest.raises(LabelError, match="teacher 'a' has an output 'mask'"):
        list(loader)
