"""What a state must hold: each loader that training depends on, however deep, and no other will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.registry import state_taken, states_taken
from edldist.errors import CheckpointError
from edldist.observe import reporter
from edldist.student.loader import DistillLoader
from edldist.wire.memory import MemoryTransport

pytestmark = pytest.mark.timeout(240)
Make = Callable[..., DistillLoader]


@pytest.fixture(autouse=True)
def outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "event", lambda name, **fields: None)
    for name in ("EDLDIST_JOB", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make() -> Iterator[Make]:
    """Make loaders whose coordinator does not exist; they are closed at the end."""
    made = []

    def loader(*, begun: bool = True, **options: Any) -> DistillLoader:
        batches = torch.arange(8.0).split(2)
        made.append(
            DistillLoader(batches, coordinator="tcp://127.0.0.1:1", transport=MemoryTransport(), **options)
        )
        if begun:
            iter(made[-1])
        return made[-1]

    yield loader
    for it in made:
        it.close()


class Trainer:
    """An own object that holds a loader, in a container, and takes its state with its own."""

    def __init__(self, loader: DistillLoader, *, forgets: bool = False) -> None:
        self.parts = {"loaders": [loader]}
        self.forgets = forgets

    def state_dict(self) -> dict[str, Any]:
        return {} if self.forgets else {"loader": self.parts["loaders"][0].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts["loaders"][0].load_state_dict(state["loader"])


def save(directory: Path, state: dict[str, Any]) -> None:
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(1, state, wait=True)
        assert checkpointer.last_error is None


def test_a_state_without_the_loader_is_refused(tmp_path: Path, make: Make) -> None:
    loader = make(teacher="big")
    says = r"the state \(model\) lacks the DistillLoader\(teacher='big'\): .* repeat or lose samples"
    with pytest.raises(CheckpointError, match=says):
        save(tmp_path, {"model": torch.nn.Linear(1, 1)})
    save(tmp_path, {"loader": loader})


def test_a_loader_within_an_own_object_is_found(tmp_path: Path, make: Make) -> None:
    trainer = Trainer(make())
    save(tmp_path, {"trainer": trainer})
    trainer.parts["loaders"][0]._position._epoch = 5
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore({"trainer": trainer}) == 1
    assert trainer.parts["loaders"][0].epoch == 0


def test_an_own_object_that_holds_a_loader_and_forgets_its_state_is_refused(
    tmp_path: Path, make: Make
) -> None:
    with pytest.raises(CheckpointError, match="lacks the DistillLoader"):
        save(tmp_path, {"trainer": Trainer(make(), forgets=True)})


def test_the_evaluations_loader_does_not_stand_in_for_the_trainings(tmp_path: Path, make: Make) -> None:
    training, evaluation = make(teacher="a"), make(teacher="b")
    with pytest.raises(CheckpointError, match=r"teacher='a'"):
        save(tmp_path, {"loader": evaluation})
    with pytest.raises(CheckpointError, match=r"lacks the DistillLoader\(teacher='b'"):
        save(tmp_path, {"loader": training})
    save(tmp_path, {"loader": training, "evaluation": evaluation})


def test_one_of_two_that_are_alike_does_not_stand_in_for_the_other(tmp_path: Path, make: Make) -> None:
    one, two = make(teacher="a"), make(teacher="a")
    for loader in (one, two):
        with pytest.raises(CheckpointError, match=r"lacks the other DistillLoader\(teacher='a'"):
            save(tmp_path, {"loader": loader})


def test_a_loader_whose_position_does_not_matter_need_not_be_there(tmp_path: Path, make: Make) -> None:
    training = make()
    make(checkpointed=False)
    save(tmp_path, {"loader": training})
    with Checkpointer(tmp_path) as checkpointer:
        assert checkpointer.restore({"loader": training}) == 1


def test_a_loader_that_was_never_used_or_is_closed_need_not_be_there(tmp_path: Path, make: Make) -> None:
    training, other = make(), make()
    make(begun=False)
    other.close()
    save(tmp_path, {"loader": training})


def test_a_collected_loader_need_not_be_there(tmp_path: Path) -> None:
    loader = DistillLoader([torch.zeros(2)], coordinator="tcp://127.0.0.1:1", transport=MemoryTransport())
    iter(loader)
    del loader
    save(tmp_path, {"model": torch.nn.Linear(1, 1)})


def test_a_restore_without_any_loader_is_refused_before_training_begins(tmp_path: Path, make: Make) -> None:
    loader = make(begun=False)
    model = torch.nn.Linear(1, 1)
    with Checkpointer(tmp_path) as checkpointer:
        with pytest.raises(CheckpointError, match="lacks the DistillLoader"):
            checkpointer.restore({"model": model})
        assert checkpointer.restore({"model": model, "trainer": Trainer(loader)}) is None
        loader.close()
        assert checkpointer.restore({"model": model}) is None


def test_states_that_are_taken_count_where_they_are_taken_once_and_nowhere_else() -> None:
    outer, inner, both = object(), object(), object()
    state_taken(outer)  # outside: nobody asks
    with states_taken() as seen:
        state_taken(outer)
        state_taken(both)
        with states_taken() as seen_inside:
            state_taken(inner)
            state_taken(both)
        state_taken(both)
        state_taken(outer)
    state_taken(inner)
    assert seen == [outer, both] and seen_inside == [inner, both]
