"""Averages of weights, and weights that are published and followed."""

from __future__ import annotations

import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edldist import PublishedWeights, WeightAverage
from edldist.errors import CheckpointError, ConfigError, InputError, ModelError
from edldist.reference import place_of
from edldist.teacher.worker import WorkerOptions
from edldist.weights.followed import FollowedWeights, Follower


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x))


def filled(value: float) -> Small:
    model = Small()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


# --- publishing and following ----------------------------------------------------------------------------


def follow(place: Path, model: nn.Module | None = None) -> FollowedWeights:
    return FollowedWeights(str(place), (model or Small()).state_dict())


def test_versions_count_up_and_the_newest_is_followed(tmp_path: Path) -> None:
    place = tmp_path / "weights"
    followed = follow(place)
    assert followed.newer_than(0) is None  # there is no such place yet
    with PublishedWeights(place) as published:
        assert followed.newer_than(0) is None and published.newest == 0
        for value in (1.0, 2.0, 3.0):
            assert published.publish(filled(value)) == int(value) == published.newest
        found = followed.newer_than(0)
        assert found is not None and found.number == 3
        assert all((tensor == 3).all() for tensor in found.tensors.values())
        assert followed.newer_than(3) is None
        assert sorted(path.name for path in place.glob("step-*")) == ["step-00000002", "step-00000003"]
    with PublishedWeights(place) as published:  # a run that goes on
        assert published.newest == 3
        assert published.publish(WeightAverage(filled(9.0)).weights) == 4
    assert not [path for path in place.rglob("*") if path.suffix in (".pkl", ".pt", ".pickle")]


def test_tied_and_strided_tensors_are_published(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    with PublishedWeights(tmp_path) as published:
        published.publish({"a": weight, "b": weight, "c": weight.t()})
    like = {"a": weight, "b": weight, "c": weight.t()}
    found = FollowedWeights(str(tmp_path), like).newer_than(0)
    assert found is not None
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in like.items())


def damage_tensors(version: Path) -> None:
    data = bytearray((version / "tensors.safetensors").read_bytes())
    data[-3] ^= 0x40
    (version / "tensors.safetensors").write_bytes(data)


def cut_tensors(version: Path) -> None:
    data = (version / "tensors.safetensors").read_bytes()
    (version / "tensors.safetensors").write_bytes(data[:-8])


def lose_tensors(version: Path) -> None:
    (version / "tensors.safetensors").unlink()


def lose_marker(version: Path) -> None:
    (version / "COMMITTED").unlink()


def change_manifest(version: Path) -> None:
    manifest = json.loads((version / "manifest.json").read_text())
    (version / "manifest.json").write_text(json.dumps(manifest | {"step": 77}))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (damage_tensors, "tensors.safetensors was changed"),
        (cut_tensors, "bytes instead of"),
        (lose_tensors, "tensors.safetensors is missing"),
        (lose_marker, "it has no marker"),
        (change_manifest, "manifest.json has sha256"),
    ],
)
def test_a_damaged_version_is_refused_once_and_the_one_before_is_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Any, says: str
) -> None:
    with PublishedWeights(tmp_path) as published:
        published.publish(filled(1.0))
        published.publish(filled(2.0))
        harm(tmp_path / "step-00000002")
        followed = follow(tmp_path)
        for _ in range(3):
            found = followed.newer_than(0)
            assert found is not None and found.number == 1
        assert caplog.text.count("weights step-00000002 at") == 1
        assert caplog.text.count(says) == 1
        published.publish(filled(3.0))
        found = followed.newer_than(1)
        assert found is not None and found.number == 3


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (nn.Linear(3, 2), "they lack layer.bias, layer.weight, norm.bias, .*; they have bias, weight, which"),
        ({**Small().state_dict(), "more": torch.zeros(1)}, "they have more, which the model has not"),
        ({**Small().state_dict(), "layer.weight": torch.zeros(2, 4)}, r"is torch.float32\[2, 4\], and"),
        ({**Small().state_dict(), "layer.weight": torch.zeros(2, 3).half()}, "layer.weight is torch.float16"),
        ({**Small().state_dict(), "layer.bias": torch.tensor([0.0, torch.nan])}, "layer.bias holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weights: Any, says: str
) -> None:
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    with PublishedWeights(tmp_path) as published:  # whatever it is, and whoever wrote it
        published._write({name: value.detach() for name, value in state.items()})
    followed = follow(tmp_path)
    assert followed.newer_than(0) is None and followed.newer_than(0) is None
    assert len(re.findall(says, caplog.text)) == 1


def test_a_draft_is_not_seen_and_what_was_left_of_one_is_removed(tmp_path: Path) -> None:
    with PublishedWeights(tmp_path) as published:
        published.publish(filled(1.0))
    draft = tmp_path / "step-00000002.partial-0011aabb"
    draft.mkdir()
    (draft / "tensors.safetensors").write_bytes(b"half")
    assert follow(tmp_path).newer_than(1) is None
    with PublishedWeights(tmp_path) as published:
        assert not draft.exists()
        assert published.publish(filled(2.0)) == 2


def test_two_cannot_publish_to_one_place(tmp_path: Path) -> None:
    with PublishedWeights(tmp_path), pytest.raises(CheckpointError):
        PublishedWeights(tmp_path)


def test_other_ranks_publish_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with PublishedWeights(tmp_path / "w") as published:
        assert published.publish(filled(1.0)) is None and published.newest is None
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("weights", "says"),
    [({}, "give a model"), ([], "give a model"), ({"a": 1.0}, "'a' is a float, not a tensor")],
)
def test_what_is_no_weights_is_refused(tmp_path: Path, weights: Any, says: str) -> None:
    with PublishedWeights(tmp_path) as published, pytest.raises(ConfigError, match=says):
        published.publish(weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_no_worker_would_load_are_not_published(tmp_path: Path, value: float) -> None:
    with PublishedWeights(tmp_path) as published:
        with pytest.raises(InputError, match="'b' has non-finite values"):
            published.publish({"a": torch.ones(2), "b": torch.tensor([1.0, value])})
        assert published.publish({"a": torch.ones(2)}) == 1


def test_nothing_is_published_to_a_place_that_was_given_back(tmp_path: Path) -> None:
    with PublishedWeights(tmp_path) as published:
        pass
    with pytest.raises(ConfigError, match="these PublishedWeights are closed"):
        published.publish({"a": torch.ones(2)})


@pytest.mark.parametrize("keep", [0, 1, True, 2.5, None])
def test_a_number_to_keep_that_cannot_be_is_refused(tmp_path: Path, keep: Any) -> None:
    with pytest.raises(ConfigError, match="use 2 or more"):
        PublishedWeights(tmp_path, keep)


def test_a_place_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be used"):
        PublishedWeights(tmp_path / "file" / "weights")


def test_a_follower_waits_for_a_first_version_and_gives_up_in_words(tmp_path: Path) -> None:
    follower = Follower(str(tmp_path), Small().state_dict(), look_s=0.01)
    with pytest.raises(ModelError, match="no weights that fit were published at .* for 0.05 s"):
        follower.first(0.05)
    follower.close()


def test_a_follower_keeps_the_newest_until_it_is_taken(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    follower = Follower(str(tmp_path), Small().state_dict(), look_s=0.005)
    with PublishedWeights(tmp_path) as published:
        published.publish(filled(1.0))
        assert follower.first(10.0).number == 1
        assert follower.take() is None
        for value in (2.0, 3.0):
            published.publish(filled(value))
        while follower._number < 3:
            time.sleep(0.001)
        found = follower.take()
        assert found is not None and found.number == 3 and follower.take() is None
    follower.close()
    assert not follower._thread.is_alive()


# --- what may be asked for ----------------------------------------------------------------------------


def test_where_weights_are_followed() -> None:
    assert place_of("follow:s3://bucket/w") == "s3://bucket/w"
    assert place_of("weights.pt") is None and place_of(None) is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"weights": "follow:"}, "say where they are published"),
        ({"weights": "follow:w", "version": "3"}, "have versions of their own"),
    ],
)
def test_options_of_a_worker_that_cannot_be_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        WorkerOptions(coordinator="tcp://127.0.0.1:1", model="a:b", **options)
