"""Checkpoints of a single process: what they hold, when they are refused, and how damage is met."""

import logging
import os
import random
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from edldist.checkpoint import lock
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.snapshot import Snapshot
from edldist.errors import CheckpointError, ConfigError
from edldist.lifecycle.group_change import EXIT_REGROUP
from edldist.observe import reporter


class Position:
    """A custom stateful object with values that JSON does not know."""

    def __init__(self):
        self.value = None

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


class Job:
    """Model, optimizer, scheduler and a noisy training step."""

    def __init__(self, seed=0, width=6):
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 2)
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.scheduler = torch.optim.lr_scheduler.MultiStepLR(self.optimizer, [3, 7], gamma=0.5)
        self.position = Position()

    @property
    def state(self):
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "position": self.position,
        }

    def train(self, steps):
        for _ in range(steps):
            noise = float(np.random.rand()) + random.random()
            loss = (self.model(torch.randn(8, 4)) * noise).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
        return [tensor.clone() for tensor in self.model.state_dict().values()]


@pytest.fixture
def events(monkeypatch):
    seen = []
    monkeypatch.setattr(reporter, "event", lambda name, **fields: seen.append((name, fields)))
    return seen


@pytest.fixture(autouse=True)
def environment(monkeypatch, events):
    for name in ("OUTPUT", "JOB", "CHECKPOINT_KEEP", "CHECKPOINT_EVERY_STEPS"):
        monkeypatch.delenv(f"EDLDIST_{name}", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def saved_dirs(directory):
    return sorted(entry.name for entry in directory.iterdir() if entry.is_dir())


def test_a_restored_run_goes_on_bit_for_bit(tmp_path, events, monkeypatch):
    job = Job()
    job.train(5)
    job.position.value = {
        "epoch": 3,
        "nan": float("inf"),
        "tuple": (1, ("a", None)),
        7: [b"\x00\xff", {1.5: True}],
        "np": np.float64(0.1),
        "counter": Counter({3: 1}),
        "half": torch.ones(2, 0, dtype=torch.bfloat16),
    }
    with Checkpointer(tmp_path) as checkpointer:
        begin, trained = checkpointer._store.begin, threading.Event()
        monkeypatch.setattr(checkpointer._store, "begin", lambda step: trained.wait(60) and begin(step))
        checkpointer.save(5, job.state)
        expected = job.train(5)  # before a byte is written: the save holds the state of its moment
        trained.set()
    other = Job(seed=99)
    random.seed(99)
    np.random.seed(99)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(other.state) == 5
    value = other.position.value
    assert value.pop("half").shape == (2, 0)
    assert value == {k: v for k, v in job.position.value.items() if k != "half"}
    assert type(value["np"]) is np.float64 and type(value["counter"]) is Counter
    assert other.scheduler.state_dict() == {**other.scheduler.state_dict(), "last_epoch": 5}
    for got, want in zip(other.train(5), expected, strict=True):
        assert torch.equal(got, want)
    assert [name for name, _ in events] == ["checkpoint_saved", "checkpoint_restored"]
    assert events[0][1]["step"] == 5 and events[0][1]["bytes"] > 1000 and events[0][1]["seconds"] > 0


def test_wrapped_models_keep_the_keys_of_bare_ones(tmp_path):
    model = nn.Linear(2, 2)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": torch.compile(model, backend="eager")}, wait=True)
        bare = nn.Linear(2, 2)
        assert checkpointer.restore({"model": bare}) == 1
    assert torch.equal(bare.weight, model.weight)


def test_the_newest_are_kept_and_a_step_can_be_saved_again(tmp_path):
    position = Position()
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 3, 3):
            position.value = f"{step} of {len(saved_dirs(tmp_path))}"
            checkpointer.save(step, {"position": position})
        checkpointer.wait()
        assert saved_dirs(tmp_path) == ["step-00000002", "step-00000003"]
        latest, position.value = position.value, None
        assert checkpointer.restore({"position": position}) == 3
        assert position.value == latest


def test_everything_is_on_disk_before_it_is_published(tmp_path, monkeypatch):
    calls, fsync, rename = [], os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (calls.append("rename"), rename(*paths)))
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": nn.Linear(3, 3)}, wait=True)
    commit = len(calls) - 1 - calls[::-1].index("rename")
    synced = [call.rpartition("/")[2] for call in calls[:commit] if "partial" in call]
    for file in os.listdir(tmp_path / "step-00000001"):
        assert file in synced
    assert synced[-2] == "COMMITTED" and synced[-1].startswith("step-00000001.partial-")
    assert calls[commit + 1 :] == [str(tmp_path)]


def test_a_group_that_was_never_formed_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match=r"met 1 rank\(s\), but there are 2: call .*init_process_group"):
        checkpointer.save(1, {"position": Position()})
    checkpointer.close()


def test_an_empty_directory_restores_nothing(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore({"position": Position()}) is None


def test_settings_come_from_arguments_then_environment(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="EDLDIST_OUTPUT"):
        Checkpointer()
    monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path))
    monkeypatch.setenv("EDLDIST_CHECKPOINT_KEEP", "7")
    monkeypatch.setenv("EDLDIST_CHECKPOINT_EVERY_STEPS", "50")
    with Checkpointer(every_steps=20) as checkpointer:
        assert checkpointer.keep == 7 and (tmp_path / "checkpoints").is_dir()
        assert [step for step in range(61) if checkpointer.due(step)] == [20, 40, 60]
    with Checkpointer() as checkpointer:
        assert checkpointer.due(50) and not checkpointer.due(20)
    for variable in ("EDLDIST_CHECKPOINT_KEEP", "EDLDIST_CHECKPOINT_EVERY_STEPS"):
        for bad in ("0", "many", "-3", "1.5"):
            with monkeypatch.context() as patch:
                patch.setenv(variable, bad)
                with pytest.raises(ConfigError, match=variable):
                    Checkpointer()
    with pytest.raises(ConfigError, match="keep=0"):
        Checkpointer(keep=0)
    monkeypatch.delenv("EDLDIST_CHECKPOINT_KEEP")
    monkeypatch.delenv("EDLDIST_CHECKPOINT_EVERY_STEPS")
    with Checkpointer() as checkpointer:
        assert checkpointer.keep == 3 and not checkpointer.due(50)


def flip(path, at=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def edit_manifest(newest):
    path = newest / "manifest.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))


DAMAGES = {
    "tensor bit flip": (lambda d: flip(d / "tensors.safetensors"), "tensors.safetensors was changed"),
    "header bit flip": (lambda d: flip(d / "tensors.safetensors", at=20), "tensors.safetensors was changed"),
    "truncation": (lambda d: os.truncate(d / "tensors.safetensors", 100), "has 100 bytes instead of"),
    "missing file": (lambda d: (d / "tensors.safetensors").unlink(), "tensors.safetensors is missing"),
    "missing rng": (lambda d: (d / "rng-00000.json").unlink(), "rng-00000.json is missing"),
    "missing marker": (lambda d: (d / "COMMITTED").unlink(), "COMMITTED is missing"),
    "missing manifest": (lambda d: (d / "manifest.json").unlink(), "manifest.json is missing"),
    "edited manifest": (edit_manifest, "manifest.json has sha256"),
    "edited marker": (lambda d: (d / "COMMITTED").write_bytes(b"\xff\n"), "manifest.json has sha256"),
    "state bit flip": (lambda d: flip(d / "state.json"), "state.json was changed"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_reported_and_the_one_before_used(tmp_path, damage, events, caplog):
    apply, reason = DAMAGES[damage]
    model, position = nn.Linear(3, 3), Position()
    state = {"model": model, "position": position}
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            position.value = step
            checkpointer.save(step, state, wait=True)
        apply(tmp_path / "step-00000002")
        with caplog.at_level(logging.WARNING):
            assert checkpointer.restore(state) == 1
        assert position.value == 1
        assert "step-00000002" in caplog.text and reason in caplog.text
        [fields] = [fields for name, fields in events if name == "checkpoint_damaged"]
        assert fields["step"] == 2 and reason in fields["reason"]
        # The next save at that step takes the damaged one's place.
        checkpointer.save(2, state, wait=True)
        assert checkpointer.restore(state) == 2


def test_a_damaged_one_does_not_count_as_kept(tmp_path):
    position = Position()
    state = {"position": position}
    with Checkpointer(tmp_path, keep=2) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state, wait=True)
        flip(tmp_path / "step-00000002" / "state.json")
        assert checkpointer.restore(state) == 1
        checkpointer.save(3, state, wait=True)
        assert saved_dirs(tmp_path) == ["step-00000001", "step-00000003"]


def test_a_restore_goes_back_behind_newer_ones_and_the_next_save_removes_them(tmp_path):
    position = Position()
    state = {"position": position}
    with Checkpointer(tmp_path, keep=5) as checkpointer:
        for step in (1, 2, 3, 4):
            position.value = step
            checkpointer.save(step, state)
        assert checkpointer.restore(state, at_most=0) is None and position.value == 4
        assert checkpointer.restore(state, at_most=3) == 3 == position.value
        assert checkpointer.restore(state, at_most=2) == 2 == position.value
        assert saved_dirs(tmp_path) == [f"step-0000000{step}" for step in (1, 2, 3, 4)], (
            "until one is durable"
        )
        position.value = 30
        checkpointer.save(3, state, wait=True)
        assert saved_dirs(tmp_path) == [f"step-0000000{step}" for step in (1, 2, 3)]
        assert checkpointer.restore(state) == 3 and position.value == 30


def test_all_damaged_is_an_error_with_every_reason(tmp_path):
    model = nn.Linear(3, 3)
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"model": model}, wait=True)
        flip(tmp_path / "step-00000001" / "tensors.safetensors")
        (tmp_path / "step-00000002" / "COMMITTED").unlink()
        before = model.weight.clone()
        with pytest.raises(CheckpointError) as caught:
            checkpointer.restore({"model": model})
    assert "step-00000002: COMMITTED is missing" in str(caught.value)
    assert "step-00000001: tensors.safetensors was changed" in str(caught.value)
    assert torch.equal(model.weight, before)


def test_another_model_is_refused_with_the_keys_that_differ(tmp_path):
    job = Job()
    job.train(1)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, job.state, wait=True)
        other = Job(seed=1, width=9)
        other.model.append(nn.Linear(2, 2))
        other.optimizer = torch.optim.AdamW(other.model.parameters())
        before = [tensor.clone() for tensor in other.model.state_dict().values()]
        with pytest.raises(CheckpointError) as caught:
            checkpointer.restore({"model": other.model, "optimizer": other.optimizer, "extra": Position()})
        text = str(caught.value)
        assert "model: missing in the checkpoint: 4.bias, 4.weight" in text
        assert "0.weight (float32[6, 4] in the checkpoint, float32[9, 4] here)" in text
        assert "and 2 more" in text  # the first five of each kind are named
        assert "parameter groups of [6] parameters in the checkpoint, of [8] here" in text
        assert "state: missing in the checkpoint: extra" in text
        assert "state: only in the checkpoint: position, scheduler" in text
        for got, want in zip(other.model.state_dict().values(), before, strict=True):
            assert torch.equal(got, want)
        smaller = nn.Sequential(nn.Linear(4, 6))
        with pytest.raises(CheckpointError, match=r"model: only in the checkpoint: 1\.bias"):
            checkpointer.restore({**job.state, "model": smaller})


def test_another_jobs_directory_is_refused_with_both_names(tmp_path, monkeypatch):
    state = {"position": Position()}
    monkeypatch.setenv("EDLDIST_JOB", "digits")
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, wait=True)
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(state) == 1
    monkeypatch.setenv("EDLDIST_JOB", "letters")
    with pytest.raises(CheckpointError, match="belongs to job 'digits'.*'letters'"):
        Checkpointer(tmp_path)
    monkeypatch.delenv("EDLDIST_JOB")  # a script by hand is nobody's job, and the refusal left no lock
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore(state) == 1


def test_mistakes_of_the_program_raise(tmp_path, monkeypatch):
    position = Position()
    with Checkpointer(tmp_path) as checkpointer:
        position.value = {"deep": [1, object()]}
        with pytest.raises(CheckpointError, match=r"position/value/deep/1 is a builtins\.object"):
            checkpointer.save(1, {"position": position})
        position.value = {(1, 2): 3}
        with pytest.raises(CheckpointError, match=r"position/value has the key \(1, 2\)"):
            checkpointer.save(1, {"position": position})
        with pytest.raises(CheckpointError, match=r"state\['step'\] is a int without state_dict"):
            checkpointer.save(1, {"step": 3})
        with pytest.raises(CheckpointError, match="negative"):
            checkpointer.save(-1, {})
        assert checkpointer.failures == 0
        monkeypatch.setattr(lock, "HANDOVER_S", 0.0)
        with pytest.raises(CheckpointError, match=r"in use by another job \(pid \d+ on "):
            Checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match="closed"):
        checkpointer.save(1, {})


def test_a_failing_disk_is_counted_and_the_next_save_works(tmp_path, events, caplog):
    place = tmp_path / "checkpoints"
    state = {"model": nn.Linear(3, 3)}
    with Checkpointer(place) as checkpointer:
        (place / ".lock").unlink()
        place.rmdir()
        place.write_text("in the way")
        with caplog.at_level(logging.WARNING):
            checkpointer.save(1, state, wait=True)
        assert checkpointer.failures == 1
        assert str(place) in checkpointer.last_error and str(place) in caplog.text
        assert len(caplog.records) == 1
        assert [name for name, _ in events] == ["checkpoint_failed"]
        place.unlink()
        checkpointer.save(2, state, wait=True)
        assert checkpointer.failures == 1 and checkpointer.restore(state) == 2


def test_a_file_in_the_directorys_place_is_refused_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be used"):
        Checkpointer(tmp_path / "file")
    with pytest.raises(CheckpointError, match="cannot be used: Not a directory"):
        Checkpointer(tmp_path / "file" / "below")


def test_a_state_that_refuses_its_values_is_named(tmp_path):
    position = Position()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"position": position}, wait=True)
        position.load_state_dict = lambda state: 1 / 0
        with pytest.raises(CheckpointError, match=r"state\['position'\] \(Position\) did not accept"):
            checkpointer.restore({"position": position})


def test_copies_from_every_device_are_waited_for(monkeypatch):
    """The state may lie on other devices than the current one."""

    class OnDevice:
        is_cuda, shape, dtype = True, (2,), torch.float32

        def __init__(self, index):
            self.device = torch.device("cuda", index)

        def detach(self):
            return self

    class Host:
        def copy_(self, tensor, non_blocking):
            return tensor

    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch, "empty", lambda *args, **options: Host())
    snapshot = Snapshot({})
    snapshot.tensors = {str(index): OnDevice(index) for index in (1, 3, 1)}
    snapshot.tensors["again"] = OnDevice(3)
    snapshot.staged(rank=0)
    assert {device.index for device in waited} == {1, 3} and len(waited) == 2


REGROUPING = """
import sys, time
import torch
from edldist.lifecycle import stopping
from edldist.checkpoint.checkpointer import Checkpointer
checkpointer = Checkpointer(sys.argv[1])
begin = checkpointer._store.begin
checkpointer._store.begin = lambda step: time.sleep(0.5) or begin(step)
stopping.should_stop()
stopping._request._agreed = True  # another rank was asked
checkpointer.save(1, {"model": torch.nn.Linear(2, 2)})
"""


def test_a_rank_that_leaves_for_a_new_group_ends_its_save_first(tmp_path):
    ended = subprocess.run([sys.executable, "-c", REGROUPING, str(tmp_path)], timeout=150, check=False)
    assert ended.returncode == EXIT_REGROUP
    assert saved_dirs(tmp_path) == ["step-00000001"]
