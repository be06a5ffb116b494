"""Publishing weights to a place that fails, and following one that is being written to or cannot be read."""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edldist import PublishedWeights
from edldist.errors import CheckpointError, ModelError
from edldist.weights import published as published_module
from edldist.weights.followed import FollowedWeights, Follower, Version


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Recorded:
    """A store that notes what was called of it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._store, name)


def followed_at(place: Any) -> FollowedWeights:
    return FollowedWeights(str(place), nn.Linear(1, 1).state_dict())


# --- publishing -----------------------------------------------------------------------------------------


def test_a_version_is_guarded_sealed_and_committed_in_that_order(tmp_path: Path) -> None:
    with PublishedWeights(tmp_path) as published:
        store: Any = Recorded(published._store)
        published._store = store
        assert published.publish(nn.Linear(1, 1)) == 1
        steps = ("guard", "begin", "seal", "commit", "forget")
        assert [call for call in store.calls if call in steps] == list(steps)
    manifest = json.loads((tmp_path / "step-00000001" / "manifest.json").read_text())
    assert (manifest["step"], manifest["world_size"]) == (1, 1)


def test_a_version_that_cannot_be_written_leaves_nothing_and_the_next_has_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PublishedWeights(tmp_path) as published:
        before = sorted(os.listdir(tmp_path))
        with monkeypatch.context() as broken:
            broken.setattr(published_module, "write_tensors", full)
            with pytest.raises(CheckpointError, match=r"no weights can be published to .*No space left"):
                published.publish(nn.Linear(1, 1))
        assert sorted(os.listdir(tmp_path)) == before
        assert published.publish(nn.Linear(1, 1)) == published.newest == 1


def test_a_place_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with PublishedWeights(tmp_path) as published:
        monkeypatch.setattr(published._store, "checkpoints", full)
        with pytest.raises(CheckpointError, match=f"nobody can see what was published to {tmp_path}"):
            assert published.newest


# --- following ------------------------------------------------------------------------------------------


def test_a_version_without_a_marker_is_waited_for_where_drafts_are_seen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"memory://{tmp_path.name}/weights"
    with PublishedWeights(url) as published:
        published.publish(nn.Linear(1, 1))
        store: Any = published._store
        ((_, name),) = store.checkpoints()
        path = f"{store._root}/{name}/COMMITTED"
        marker = store._fs.cat_file(path)
        store._fs.rm_file(path)
        followed = followed_at(url)
        assert followed.newer_than(0) is None and not caplog.messages
        store._fs.pipe_file(path, marker)
        found = followed.newer_than(0)
        assert found is not None and found.number == 1
        followed.close()


def test_a_place_that_cannot_be_read_for_a_while_is_said_once_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    followed = followed_at(tmp_path)
    store: Any = Recorded(followed._store)
    followed._store = store
    with monkeypatch.context() as broken:
        broken.setattr(store._store, "checkpoints", full)
        for _ in range(3):
            assert followed.newer_than(0) is None
    assert len(caplog.messages) == 1 and "cannot be read: " in caplog.text and "No space left" in caplog.text
    followed.close()
    assert "release" in store.calls and len(caplog.messages) == 2, "how often it was not said"


class Weights:
    """Versions that come at certain looks, and the numbers above which somebody looked."""

    def __init__(self, *versions: int | None) -> None:
        self._versions = list(versions)
        self.asked: list[int] = []
        self.looked = threading.Semaphore(0)
        self.closed = False

    def newer_than(self, number: int) -> Version | None:
        self.asked.append(number)
        found = self._versions.pop(0) if self._versions else None
        self.looked.release()
        return None if found is None else Version(found, {"w": torch.zeros(1)})

    def close(self) -> None:
        self.closed = True


def follower(tmp_path: Path, weights: Weights, look_s: float = 0.001) -> Follower:
    made = Follower(str(tmp_path), {}, look_s)
    made._weights = weights  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(("patience_s", "looks", "waits"), [(0.0, 1, 0), (0.002, 2, 1), (0.005, 5, 1)])
def test_a_first_version_is_waited_for_as_long_as_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    patience_s: float,
    looks: int,
    waits: int,
) -> None:
    weights, waited = Weights(), []
    made = follower(tmp_path, weights)
    monkeypatch.setattr(made._ended, "wait", waited.append)
    with caplog.at_level(logging.INFO), pytest.raises(ModelError, match="no weights that fit"):
        made.first(patience_s)
    assert weights.asked == [0] * looks and waited == [0.001] * looks
    assert caplog.text.count("waiting for weights at") == waits


def test_what_follows_a_version_is_looked_for_above_it_and_taken_once(tmp_path: Path) -> None:
    weights = Weights(None, 3, None, 5, None, None)
    made = follower(tmp_path, weights)
    assert made._thread.daemon, "it keeps no process alive"
    assert made.first(1.0).number == 3
    for _ in range(6):
        assert weights.looked.acquire(timeout=30)
    made.close()
    assert weights.closed and not made._thread.is_alive()
    assert weights.asked[:6] == [0, 0, 3, 3, 5, 5]
    found = made.take()
    assert found is not None and found.number == 5 and made.take() is None


def test_a_follower_that_found_nothing_closes(tmp_path: Path) -> None:
    weights = Weights()
    follower(tmp_path, weights).close()
    assert weights.closed
