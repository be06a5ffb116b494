"""Workers of one group are compared: those that answer otherwise are found, named, and done without."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

import edldist
from edldist import LabelStore
from edldist.errors import ConfigError
from tests.harness import LocalJob

pytestmark = pytest.mark.timeout(120)


def batches(count: int) -> list[dict[str, Tensor]]:
    return [{"id": torch.arange(8) + 8 * number} for number in range(count)]


PAUSE = threading.Event()


def await_stat(loader: edldist.DistillLoader, name: str, value: int) -> None:
    for _ in range(4000):
        if loader.stats()[name] == value:
            return
        PAUSE.wait(0.005)
    raise AssertionError(f"{name} is {loader.stats()[name]}, and not {value}")


def take(steps, count: int) -> None:
    """Take batches, all of whose labels are right."""
    for _ in range(count):
        batch, labels = next(steps)
        assert labels["logits"][:, 0].tolist() == batch["id"].tolist()


def loader_of(job: LocalJob, agreement: object = None, count: int = 400) -> edldist.DistillLoader:
    bounds = {"every_s": 0.05} if agreement is None else agreement
    return job.loader(batches(count), inputs="id", agreement=bounds, low_watermark=1, high_watermark=2)


@pytest.mark.parametrize(
    ("mind", "says"),
    [
        ("other", "its output 'logits' is "),
        ("nan", "a logit is nan at sample 0"),
        ("constant", "it differs from worker"),
        ("wavering", "it answers two ways"),
    ],
)
def test_a_worker_of_another_mind_never_labels(job: LocalJob, mind: str, says: str, caplog):
    first = job.teacher("minded", batch_size=4)
    loader = loader_of(job)
    steps = iter(loader)
    take(steps, 3)
    job.teacher("minded", batch_size=4)
    outlier = job.teacher("minded", batch_size=4, model_args={"mind": mind})
    await_stat(loader, "teachers", 3)
    for _ in range(370):
        take(steps, 1)
        if loader.stats()["aside"]:
            break
        PAUSE.wait(0.01)
    take(steps, 20)
    stats = loader.stats()
    assert (stats["aside"], stats["doubtful"], stats["failed"]) == (1, 0, 0)
    assert outlier.service._ledger.samples == 0 < first.service._ledger.samples
    assert f"worker {outlier.worker_id} on " in caplog.text and says in caplog.text
    assert says in outlier.service._stats()["quarantine"]


def test_weights_that_change_in_mid_run_are_noticed_and_what_waits_is_labelled_anew(job: LocalJob):
    workers = [job.teacher("minded", batch_size=4) for _ in range(2)]
    loader = loader_of(job)
    steps = iter(loader)
    take(steps, 5)
    model = workers[0]._teacher.model
    model.mind = "other"
    wrong = 0
    for _ in range(300):
        batch, labels = next(steps)
        wrong += int((labels["logits"][:, 0] != batch["id"]).sum())
        if loader.stats()["aside"]:
            break
        PAUSE.wait(0.01)
    take(steps, 20)
    stats = loader.stats()
    assert stats["aside"] == 1 and wrong <= stats["doubtful"]


def test_of_one_first_worker_that_is_wrong_two_others_tell(job: LocalJob):
    job.teacher("minded", batch_size=4, model_args={"mind": "other"})
    loader = loader_of(job)
    steps = iter(loader)
    batch, labels = next(steps)
    assert labels["logits"][:, 1].tolist() == batch["id"].tolist(), "nobody knows better"
    for _ in range(2):
        job.teacher("minded", batch_size=4)
    wrong = 8
    for _ in range(390):
        batch, labels = next(steps)
        if loader.stats()["doubtful"]:
            break
        wrong += int((labels["logits"][:, 0] != batch["id"]).sum())
        PAUSE.wait(0.01)
    take(steps, 5)
    assert loader.stats()["doubtful"] >= 8 and loader.stats()["aside"] == 1


def test_where_nobody_is_compared_an_outlier_labels(job: LocalJob):
    job.teacher("minded", batch_size=4, model_args={"mind": "constant"})
    loader = loader_of(job, "off", count=3)
    assert len(list(loader)) == 3 and "aside" not in loader.stats()


@pytest.mark.parametrize(
    ("agreement", "says"),
    [
        ({"max_nats": 0}, r"max_nats=0: needs a number above 0"),
        ({"max_nats": float("nan")}, "max_nats=nan"),
        ({"every_s": -1}, "every_s=-1: needs seconds"),
        ({"max_nats": True}, "max_nats=True"),
        ({"threshold": 1}, "'threshold' is no bound; there are max_nats, max_relative, every_s"),
        ("max_nats", "'max_nats' is none"),
        ("max_nats=x", "use off, or bounds as in"),
        (["off"], "use a mapping"),
    ],
)
def test_bounds_that_cannot_be_used_are_refused(agreement, says):
    with pytest.raises(ConfigError, match=says):
        edldist.DistillLoader([], coordinator="tcp://127.0.0.1:1", agreement=agreement)


def test_labels_of_a_worker_that_is_put_aside_go_from_the_store(job: LocalJob, tmp_path):
    """Of the first worker, which is wrong, all; of one that changes in mid-run, those since it agreed."""

    def until(what: str, least: int) -> None:
        for _ in range(190):
            next(steps)
            if loader.stats()[what] >= least:
                return
            PAUSE.wait(0.01)
        raise AssertionError(f"{what}: {loader.stats()}")

    job.teacher("minded", version="1", batch_size=4, model_args={"mind": "other"})
    bounds = {"every_s": 0.05}
    with job.loader(
        batches(400), "id", agreement=bounds, low_watermark=1, high_watermark=2, store=tmp_path
    ) as loader:
        steps = iter(loader)
        for _ in range(3):
            next(steps)
        workers = [job.teacher("minded", version="1", batch_size=4) for _ in range(2)]
        until("doubtful", 24)
        first = loader.stats()["store_withdrawn"]
        assert first >= 24, "what the loop had from it"
        take(steps, 5)
        workers[0]._teacher.model.mind = "constant"
        until("aside", 2)
        assert loader.stats()["store_withdrawn"] > first
        take(steps, 5)
    with LabelStore(tmp_path) as store:
        kept = torch.cat([batch.labels()["logits"] for batch in store.open()])
    assert torch.equal(kept[:, 1], 2 * kept[:, 0] + 1), "nothing of another mind"
    assert len(kept) >= 40
