"""The stability example at toy size: a shock halfway, and a guard that goes back behind broken batches."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edldist.lifecycle import stopping
from edldist.observe import reporter
from examples.stability import prepare, recipe, student
from examples.stability.data import BROKEN_BATCHES, USERS, events, stream
from tests.harness import LocalJob, local_job

pytestmark = pytest.mark.timeout(240)

STEPS = 60


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalJob]:
    """A teacher that has learnt for a moment, behind the real label path."""
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(stopping, "_request", None)
    weights = tmp_path / "teacher.safetensors"
    save_file(prepare.trained(steps=60).state_dict(), weights)
    with local_job() as made:
        made.teacher(model="examples.stability.models:teacher", weights=str(weights))
        monkeypatch.setenv("EDLDIST_COORDINATOR", made.address)
        monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path / "out"))
        monkeypatch.setenv("EDLDIST_CHECKPOINT_EVERY_STEPS", "10")
        yield made
        reporter.flush()  # while there is somebody to hear it
        assert made.errors == []
    signal.signal(signal.SIGTERM, former)


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["student.py", "--steps", str(STEPS), *arguments])
    student.main()
    return capsys.readouterr().out


def test_three_broken_batches_are_left_out_and_the_model_lives(
    job: LocalJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(monkeypatch, capsys, "--optimizer", "adagrad", "--rate", "1", "--shock", "batches", "--guard")
    found = re.search(r"AUC: (\S+); (\d+) rollbacks, (\d+) samples left out", said)
    assert found is not None
    auc, rollbacks, left_out = (float(part) for part in found.groups())
    assert auc > 0.6 and 1 <= rollbacks <= BROKEN_BATCHES
    assert left_out >= BROKEN_BATCHES * recipe.BATCH and left_out % recipe.BATCH == 0


@pytest.mark.slow
def test_without_the_guard_they_are_its_end(
    job: LocalJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(monkeypatch, capsys, "--optimizer", "adagrad", "--rate", "1", "--shock", "batches")
    assert "AUC: 0.5000; 0 rollbacks, 0 samples left out" in said


def test_clippy_goes_through_a_new_feature(
    job: LocalJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"AUC: (\S+);", run(monkeypatch, capsys, "--optimizer", "clippy", "--rate", "16"))
    assert found is not None and float(found.group(1)) > 0.6


def test_the_stream_is_its_seed_s_and_changes_at_the_middle() -> None:
    one, other = events(3, 50), events(3, 50)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["context"], events(4, 50)["context"])
    assert int(one["user"].max()) < USERS and set(one["click"].tolist()) == {0, 1}
    feature = stream(3, 5, 10, "feature").__getitems__(list(range(50)))
    assert feature["watched"][:20].eq(0).all() and torch.equal(feature["watched"][20:], one["watched"][20:])
    broken = stream(3, 5, 10, "batches").__getitems__(list(range(50)))
    infinite = broken["context"].isinf().any(1).nonzero().flatten().tolist()
    assert infinite == list(range(20, 20 + 10 * BROKEN_BATCHES)) and broken["watched"].eq(0).all()
    with pytest.raises(ValueError, match=r"count=0"):
        events(3, 0)


def test_a_model_without_answers_has_the_area_of_a_coin() -> None:
    model = student.student()
    with torch.no_grad():
        model.layers[0].weight.fill_(float("nan"))
    assert recipe.auc(model, "feature") == 0.5
