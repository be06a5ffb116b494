"""What differs by rank: saved by every rank for itself, and given back to it, or None."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edldist.checkpoint import registry
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.rank_state import is_rank_file, rank_file
from edldist.errors import CheckpointError
from edldist.observe import reporter


@pytest.fixture(autouse=True)
def outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "event", lambda name, **fields: None)
    for name in ("EDLDIST_JOB", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)


class Reader:
    """A data loader of each rank's own: ``own`` differs by rank, ``epoch`` does not."""

    def __init__(self, own: Any = None) -> None:
        self.epoch = 0
        self.own = own
        self.calls: list[tuple[str, Any]] = []

    def state_dict(self) -> dict[str, int]:
        registry.state_taken(self)
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls.append(("all", state))

    def rank_state_dict(self) -> Any:
        return self.own

    def load_rank_state_dict(self, state: Any) -> None:
        self.calls.append(("own", state))
        self.own = state


class Holder:
    """An own object that knows nothing of ranks, around two readers."""

    def __init__(self, *readers: Reader) -> None:
        self.readers = readers

    def state_dict(self) -> list[Any]:
        return [reader.state_dict() for reader in self.readers]

    def load_state_dict(self, state: list[Any]) -> None:
        for reader, part in zip(self.readers, state, strict=True):
            reader.load_state_dict(part)


def save(directory: Path | str, state: dict[str, Any]) -> None:
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(1, state, wait=True)
        assert checkpointer.last_error is None


def restore(directory: Path | str, state: dict[str, Any]) -> None:
    with Checkpointer(directory) as checkpointer:
        assert checkpointer.restore(state) == 1


def test_values_and_tensors_come_back_after_the_shared_state(tmp_path: Path) -> None:
    own = {
        "at": 7,
        "rng": torch.arange(6, dtype=torch.uint8),
        "order": np.arange(3),
        "half": [torch.ones(2).half()],
    }
    save(tmp_path, {"reader": Reader(own)})
    own["rng"].zero_()  # what is saved is a copy
    files = os.listdir(tmp_path / "step-00000001")
    assert {"rank-00000.json", "rank-00000.safetensors"} < set(files)
    other = Reader()
    restore(tmp_path, {"reader": other})
    assert [kind for kind, _ in other.calls] == ["all", "own"]
    assert other.own["at"] == 7 and other.own["rng"].tolist() == [0, 1, 2, 3, 4, 5]
    assert other.own["order"].tolist() == [0, 1, 2] and other.own["half"][0].dtype == torch.float16


def test_an_object_store_is_asked_for_this_ranks_files(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}-rank-state"
    save(url, {"reader": Reader({"at": 7, "rng": torch.arange(3)})})
    other = Reader()
    restore(url, {"reader": other})
    assert other.own["at"] == 7 and other.own["rng"].tolist() == [0, 1, 2]


def test_nothing_of_its_own_needs_no_file_and_gives_none(tmp_path: Path) -> None:
    save(tmp_path, {"reader": Reader(None)})
    assert not [file for file in os.listdir(tmp_path / "step-00000001") if is_rank_file(file)]
    other = Reader("before")
    restore(tmp_path, {"reader": other})
    assert other.calls[-1] == ("own", None)


def test_what_an_object_holds_is_asked_if_the_object_does_not_speak_for_it(tmp_path: Path) -> None:
    save(tmp_path, {"holder": Holder(Reader("left"), Reader("right")), "alone": Reader("alone")})
    readers = Reader(), Reader(), Reader()
    restore(tmp_path, {"holder": Holder(*readers[:2]), "alone": readers[2]})
    assert [reader.own for reader in readers] == ["left", "right", "alone"]


def test_an_object_that_speaks_for_itself_speaks_for_what_it_holds(tmp_path: Path) -> None:
    class Speaker(Holder):
        def rank_state_dict(self) -> Any:
            return "said"

        def load_rank_state_dict(self, state: Any) -> None:
            self.heard = state

    save(tmp_path, {"holder": Speaker(Reader("left"))})
    other = Speaker(Reader())
    restore(tmp_path, {"holder": other})
    assert other.heard == "said" and other.readers[0].own is None


def test_another_number_of_ranks_leaves_it_to_the_object(tmp_path: Path) -> None:
    from tests.unit.test_checkpoint_tensors import rewrite_manifest

    save(tmp_path, {"reader": Reader({"at": 7})})
    rewrite_manifest(tmp_path / "step-00000001", lambda manifest: manifest.update(world_size=2))
    other = Reader("before")
    restore(tmp_path, {"reader": other})
    assert other.calls == [("all", {"epoch": 0}), ("own", None)]


def test_a_state_that_nobody_takes_here_is_refused(tmp_path: Path) -> None:
    save(tmp_path, {"holder": Holder(Reader("left"), Reader("right"))})
    for readers in ((), (Reader(),)):
        with pytest.raises(CheckpointError, match=rf"holder: .* of 2 object\(s\), here {len(readers)} take"):
            restore(tmp_path, {"holder": Holder(*readers)})
        assert all(not reader.calls for reader in readers)


def test_what_no_checkpoint_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"reader/0/deep/1 is a builtins\.object"):
        save(tmp_path, {"reader": Reader({"deep": [1, object()]})})


def test_an_object_that_refuses_its_own_state_is_named(tmp_path: Path) -> None:
    save(tmp_path, {"reader": Reader(1)})
    other = Reader()
    other.load_rank_state_dict = lambda state: 1 / 0  # type: ignore[assignment, method-assign]
    with pytest.raises(
        CheckpointError, match=r"state\['reader'\]: Reader did not accept .* ZeroDivisionError"
    ):
        restore(tmp_path, {"reader": other})


def test_the_values_are_readable_by_any_program(tmp_path: Path) -> None:
    save(tmp_path, {"reader": Reader({"at": 7})})
    assert json.loads((tmp_path / "step-00000001" / rank_file(0)).read_text()) == {"reader": [{"at": 7}]}


def test_files_are_told_by_their_rank() -> None:
    assert is_rank_file("rank-00003.json", 3) and is_rank_file("rank-00003.safetensors", 3)
    assert not is_rank_file("rank-00003.json", 4) and is_rank_file("rank-100003.json", 100003)
    assert not is_rank_file("rng-00003.json") and not is_rank_file("state.json")
