"""Lightning's own Trainer with the labels of a job, at one rank."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

import edldist
from edldist.errors import ConfigError
from tests.harness import LocalJob
from tests.integration.lightning_loop import (
    SAMPLES,
    STEPS,
    DistillCallback,
    FitLoader,
    InProcess,
    ModelCheckpoint,
    Module,
    Setup,
    loader_of,
    trainer_of,
)

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(edldist, "report", lambda **values: made.append(values))
    return made


@pytest.fixture(autouse=True)
def sigterm_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Any:
    former = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(DistillCallback, "_handler", former)
    monkeypatch.setattr(edldist, "should_stop", lambda: False)
    yield
    signal.signal(signal.SIGTERM, former)


def fit(job: LocalJob, folder: Path, setup: Setup, *callbacks: Any, resume: str | None = None, **more: Any):
    module = Module(setup)
    loader = FitLoader(loader_of(setup, coordinator=job.address, transport=job.transport))
    job.loaders.append(loader.loader)
    trainer = trainer_of(setup, folder, *callbacks)
    trainer.fit(module, loader, ckpt_path=resume, **more)
    return module, loader, trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_sample_of_every_epoch_and_the_losses_of_labels_that_were_computed_in_process(
    memory_job, tmp_path, accumulate
):
    memory_job.teacher()
    setup = Setup(accumulate=accumulate)
    module, loader, trainer = fit(memory_job, tmp_path / "job", setup)
    alone = Module(setup)
    trainer_of(setup, tmp_path / "alone").fit(alone, InProcess())
    assert [epoch for epoch, _ in module.trained] == [0] * STEPS + [1] * STEPS + [2] * STEPS
    for epoch in range(3):
        assert sorted(i for at, ids in module.trained if at == epoch for i in ids) == list(range(SAMPLES))
    assert module.trained == alone.trained
    assert module.losses == pytest.approx(alone.losses, abs=1e-6)
    assert trainer.global_step == 3 * -(-STEPS // accumulate)
    assert loader.loader.stats()["discarded"] == 0


def test_a_resume_from_any_checkpoint_is_the_uninterrupted_run(memory_job, tmp_path):
    memory_job.teacher()
    whole, _, _ = fit(memory_job, tmp_path, Setup())
    found = {int(path.stem.rpartition("=")[2]): path for path in tmp_path.glob("step-*.ckpt")}
    assert sorted(found) == list(range(1, 3 * STEPS + 1))
    for step in (1, 5, STEPS, STEPS + 1, 2 * STEPS, 3 * STEPS - 1):
        module, loader, _ = fit(memory_job, tmp_path / "again", Setup(every=99), resume=str(found[step]))
        assert module.trained == whole.trained[step:]
        assert module.losses == pytest.approx(whole.losses[step:], abs=1e-6)
        assert module.weights == pytest.approx(whole.weights, abs=1e-9)
        loader.loader.close()


def test_a_resume_from_the_end_of_an_epoch_goes_on_with_the_next(memory_job, tmp_path):
    memory_job.teacher()
    whole, _, _ = fit(memory_job, tmp_path / "whole", Setup(every=99))
    one, _, trainer = fit(memory_job, tmp_path / "one", Setup(every=99, epochs=1))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    rest, _, _ = fit(memory_job, tmp_path / "rest", Setup(every=99), resume=str(tmp_path / "end.ckpt"))
    assert one.trained + rest.trained == whole.trained
    assert rest.weights == pytest.approx(whole.weights, abs=1e-9)


def test_a_resume_from_a_checkpoint_of_a_validation_is_the_uninterrupted_run(memory_job, tmp_path, reports):
    """Lightning saves those behind the last batch of an epoch, which is not over yet for it."""
    memory_job.teacher()
    more = {"val_dataloaders": DataLoader(torch.arange(6.0), batch_size=3)}
    saving = ModelCheckpoint(tmp_path, "{epoch}", monitor="validated", save_top_k=-1, mode="max")
    whole, _, _ = fit(memory_job, tmp_path / "whole", Setup(every=99), saving, DistillCallback(99), **more)
    assert [each["validated"] for each in reports] == [7.5] * 3
    for epoch in (0, 1):
        found = str(tmp_path / f"epoch={epoch}.ckpt")
        rest, loader, _ = fit(memory_job, tmp_path / "rest", Setup(every=99), resume=found, **more)
        assert rest.trained == whole.trained[(epoch + 1) * STEPS :]
        assert rest.weights == pytest.approx(whole.weights, abs=1e-9)
        loader.loader.close()


def test_what_lightning_logs_is_reported_with_the_place(memory_job, tmp_path, reports):
    memory_job.teacher()
    module, _, _ = fit(memory_job, tmp_path, Setup(accumulate=3), DistillCallback(report_every_steps=2))
    assert [(each["step"], each["epoch"]) for each in reports] == [(2, 0), (4, 1), (6, 1), (8, 2)]
    assert {(each["steps"], each["epochs"]) for each in reports} == {(9, 3)}
    assert [each["loss"] for each in reports] == pytest.approx([module.losses[n] for n in (5, 9, 13, 19)])
    assert all(each["loss_seen"] == pytest.approx(each["loss"]) for each in reports)


def test_ranks_that_would_each_train_a_model_of_their_own_are_refused(memory_job, tmp_path, monkeypatch):
    """A Trainer takes one CPU unless it is told otherwise, whatever torchrun started."""
    memory_job.teacher()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match=r"2 rank.* trains on 1, .*Trainer\(devices=.*num_nodes="):
        fit(memory_job, tmp_path, Setup(), DistillCallback())


def test_mistakes_say_what_to_do(memory_job, tmp_path):
    memory_job.teacher()
    bare = memory_job.loader([{"id": torch.arange(4)}], inputs="id")
    with pytest.raises(ConfigError, match=r"pass it as FitLoader\(loader\)"):
        trainer_of(Setup(), tmp_path, DistillCallback()).fit(Module(Setup()), bare)
    endless = memory_job.loader(iter([]), inputs="id")
    with pytest.raises(ConfigError, match="pass batches="):
        FitLoader(endless)
    assert len(FitLoader(endless, batches=9)) == 9
    with pytest.raises(ConfigError, match="report_every_steps=0"):
        DistillCallback(0)
