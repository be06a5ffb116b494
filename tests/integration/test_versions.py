"""A teacher that is replaced by a newer version while a student runs."""

from __future__ import annotations

import random
import time

import pytest
import torch

from edldist import Sequences
from edldist.errors import LabelError
from tests.integration.test_missing_groups import Endless, leave, until

pytestmark = pytest.mark.timeout(240)


def start(job, version: int, name: str = "teacher", model: str = "shifted", **options):
    """A worker whose labels tell its version."""
    return job.teacher(model, name=name, model_args={"by": float(version)}, version=str(version), **options)


def check(batch, labels, prefix: str = "") -> torch.Tensor:
    """Each row was computed by the version that it says."""
    version = labels[f"{prefix}version"]
    assert version.dtype == torch.int64 and version.shape == batch["id"].shape
    ids = batch["id"].double()
    assert torch.equal(labels[f"{prefix}logits"], torch.stack([ids, ids + version], dim=1))
    return version


def test_a_newer_version_takes_over_and_every_label_says_which_it_is_of(job):
    start(job, 1)
    data = Endless()
    loader = job.loader(data, "id", versions=1, task_size=1, high_watermark=6)
    seen: list[int] = []
    versions: list[torch.Tensor] = []

    def taken():
        for batch, labels in loader:
            versions.append(check(batch, labels))
            seen.extend(batch["id"].tolist())
            yield batch, labels

    loop = taken()
    until(loop, lambda batch, labels: len(seen) >= 100)
    for version in (2, 3):
        start(job, version)
        until(loop, lambda batch, labels, version=version: bool((labels["version"] == version).all()))
        for _ in range(10):
            next(loop)
    data.ended = True
    list(loop)
    assert seen == list(range(len(seen)))
    every = torch.cat(versions)
    assert torch.equal(every, every.sort().values), "with one version at a time none comes back"
    assert set(every.tolist()) == {1, 2, 3}
    assert loader.state_dict()["teachers"]["teacher"]["version"] == "3"


def test_as_many_versions_label_at_a_time_as_are_taken(memory_job):
    """Workers of three versions are there, and only the two newest ones label."""
    for version in (1, 2, 3):
        if version == 1:
            start(memory_job, version)
            loader = memory_job.loader(Endless(4000), "id", versions={"teacher": 2}, task_size=1)
            loop = iter(loader)
            next(loop)
        else:
            start(memory_job, version)
    until(loop, lambda batch, labels: 3 in labels["version"].tolist())
    kinds = set()
    for (batch, labels), _ in zip(loop, range(200), strict=False):
        kinds |= set(check(batch, labels).tolist())
    assert kinds <= {2, 3} and 3 in kinds
    assert memory_job.errors == []  # the old one is left alone, for other students


def test_labels_of_older_versions_that_the_loop_has_not_had_are_asked_for_again(memory_job):
    start(memory_job, 1)
    loader = memory_job.loader(Endless(50), "id", versions=1, low_watermark=7, high_watermark=8)
    loop = iter(loader)
    batch, labels = next(loop)
    assert check(batch, labels).tolist() == [1] * 4
    while loader.stats()["buffered"] < 7:
        time.sleep(0.01)
    start(memory_job, 2)
    while loader.stats()["stale"] < 4 * 6 or loader.stats()["buffered"] < 7:
        time.sleep(0.01)
    rest = [(batch["id"].tolist(), set(check(batch, labels).tolist())) for batch, labels in loop]
    assert sum((ids for ids, _ in rest), []) == list(range(4, 200))
    # The next one may have been on its way to the loop already.
    assert all(versions == {2} for _, versions in rest[1:])


def test_versions_of_one_of_several_teachers_and_of_routed_samples(memory_job):
    memory_job.teacher("shifted", name="a")
    start(memory_job, 7, name="b")
    both = memory_job.loader(Endless(3), "id", teacher=("a", "b"), versions={"b": 1})
    for batch, labels in both:
        assert labels.keys() == {"a/logits", "b/logits", "b/version"}
        assert check(batch, labels, "b/").tolist() == [7] * 4
    start(memory_job, 4, name="c")
    chance = random.Random(1)
    routed = memory_job.loader(
        Endless(5), "id", teacher=("b", "c"), versions=1, route=lambda batch: [chance.randrange(2)] * 4
    )
    for batch, labels in routed:
        assert set(check(batch, labels).tolist()) <= {4, 7}


def test_versions_of_sequences_are_at_their_positions(memory_job):
    start(memory_job, 3, model="shifted_tokens", batch_size=64)
    ids = torch.tensor([[20, 21, 22], [23, 0, 0]])
    loader = memory_job.loader([{"ids": ids}], Sequences("ids", mask=lambda b: b["ids"] != 0), versions=1)
    ((_, labels),) = list(loader)
    assert labels["version"].tolist() == [[3, 3, 3], [3, 0, 0]]


def test_without_versions_a_newer_one_is_refused_as_ever(memory_job):
    start(memory_job, 1)
    loader = memory_job.loader(Endless(20), "id")
    loop = iter(loader)
    next(loop)
    start(memory_job, 2)
    assert all("version" not in labels for _, labels in loop)
    leave(memory_job, "teacher")
    assert "version 2 instead of 1" in str(memory_job.errors.pop())


def test_a_run_that_goes_on_takes_the_versions_of_its_checkpoint_and_newer_ones(memory_job):
    start(memory_job, 5)
    loader = memory_job.loader(Endless(3), "id", versions=1)
    assert len(list(loader)) == 3
    state = loader.state_dict()
    loader.close()
    leave(memory_job, "teacher")
    start(memory_job, 4)
    resumed = memory_job.loader(Endless(6), "id", versions=1, checkpointed=False)
    resumed.load_state_dict(state)
    loop = iter(resumed)
    start(memory_job, 6)
    versions = {each for batch, labels in loop for each in check(batch, labels).tolist()}
    assert versions == {6}


def test_each_of_several_ranks_saves_the_version_that_it_has_met(memory_job, monkeypatch):
    """At one step one rank may have labels of a newer version than another has, and a save would be refused
    if that were kept once for all of them."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    start(memory_job, 1)
    loader = memory_job.loader(Endless(8), "id", versions=2)
    next(iter(loader))
    assert "teachers" not in loader.state_dict()
    saved = loader.rank_state_dict()
    assert saved["teachers"]["teacher"]["version"] == "1"
    loader.load_state_dict(loader.state_dict())
    loader.load_rank_state_dict(saved)
    assert loader.rank_state_dict()["teachers"]["teacher"]["version"] == "1"


def test_an_output_of_the_name_of_the_version_is_refused(memory_job):
    memory_job.teacher("says_version", version="1")
    with pytest.raises(LabelError, match="teacher 'teacher' has an output 'version'"):
        list(memory_job.loader(Endless(1), "id", versions=1))
