"""What ranks of a live group do together, and what a ``LiveGroup`` is without one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edldist
from edldist.errors import ConfigError, RegroupError
from edldist.live.collective import await_work
from edldist.live.roll import Roll
from edldist.live.standing import Standing
from edldist.live.terms import TERMS_VARIABLE, LiveTerms
from tests.integration.ranks import run_ranks


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks("tests.integration.live_rank", {}, 2, tmp_path_factory.mktemp("ranks"))


def test_gradients_become_their_mean_and_who_has_heard_of_something_is_counted(
    two: list[dict[str, Any]],
) -> None:
    for told in two:
        assert told["averaged"] == {"grads": [[1.5, 4.5], [2.0, 2.0, 2.0], None], "asked": 1, "waiting": 2}


def test_a_rank_that_is_a_step_behind_gets_the_weights_of_the_other(two: list[dict[str, Any]]) -> None:
    first, second = (told["behind"] for told in two)
    assert first == second
    assert first["step"] == 2 and first["positions"] == {"loader": {"samples": 20, "of": 1}}
    assert first["lr"] == pytest.approx(0.2) and len(first["moments"]) == 2


def test_ranks_that_have_come_as_far_keep_what_they_have(two: list[dict[str, Any]]) -> None:
    first, second = (told["equal"] for told in two)
    assert first["weight"] != second["weight"] and first["positions"]["loader"]["of"] == 0


def test_ranks_that_differ_in_what_is_no_tensor_are_made_equal(two: list[dict[str, Any]]) -> None:
    """A change of the group came between the step and the scheduler's step, on one of them."""
    first, second = (told["unequal"] for told in two)
    assert first == second and first["lr"] == pytest.approx(0.1)


def test_ranks_that_begin_begin_with_the_same_weights(two: list[dict[str, Any]]) -> None:
    first, second = (told["new"] for told in two)
    assert first["weight"] == second["weight"] and first["step"] == second["step"] == -1


def test_a_rank_that_joins_gets_weights_optimizer_and_positions(two: list[dict[str, Any]]) -> None:
    first, second = (told["joins"] for told in two)
    assert first == second and first["step"] == 3 and first["lr"] == pytest.approx(0.1)


def test_a_rank_with_another_model_is_told_what_differs(two: list[dict[str, Any]]) -> None:
    first, second = (told["unlike"] for told in two)
    assert first["step"] == 1
    assert "start the same script everywhere" in second["error"]
    assert "weight (float32[2, 2] in the checkpoint, float32[3, 2] here)" in second["error"]


class Work:
    """An operation that ends after so many slices, well or not."""

    def __init__(self, slices: int, error: str = "") -> None:
        self.slices, self.error = slices, error

    def wait(self, timeout: object = None) -> None:
        self.slices -= 1
        if self.slices > 0:
            raise RuntimeError("Operation timed out!")
        if self.slices <= 0 and self.error:
            raise RuntimeError(self.error)

    def is_completed(self) -> bool:
        return self.slices <= 0


def test_an_operation_is_waited_for_over_many_slices() -> None:
    asked: list[int] = []

    def lost() -> str:
        asked.append(1)
        return ""

    await_work(Work(5), Standing(lost))
    assert len(asked) == 4


def test_an_operation_is_left_where_it_is_once_the_group_has_changed() -> None:
    reasons = iter(["", "", "1 of 2 ranks is gone"])
    with pytest.raises(RegroupError, match="1 of 2 ranks is gone"):
        await_work(Work(1000), Standing(lambda: next(reasons)))


def test_an_operation_is_waited_for_no_longer_than_its_caller_wants() -> None:
    with pytest.raises(RuntimeError, match="timed out"):
        await_work(Work(10**9), Standing(lambda: ""), timeout_s=0.0)


def test_an_operation_that_fails_is_a_change_too() -> None:
    standing = Standing(lambda: "")
    with pytest.raises(RegroupError, match="Connection closed by peer"):
        await_work(Work(2, "Connection closed by peer [10.0.0.1]"), standing)
    assert "Connection closed by peer" in standing.ended


# --- without a supervisor ---------------------------------------------------------------------------


def test_alone_a_group_is_one_generation(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    for generation in edldist.LiveGroup({"model": model, "optimizer": optimizer}):
        with generation, edldist.Checkpointer(tmp_path) as checkpointer:
            assert (generation.rank, generation.world_size, generation.number) == (0, 1, 0)
            step = generation.resume(checkpointer)
            for _ in range(2):
                model(torch.ones(1)).sum().backward()
                step = generation.step(optimizer)
            checkpointer.save(step, generation.state, wait=True)
            seen.append(step)
    assert seen == [2]

    again = nn.Linear(1, 1)
    state = {"model": again, "optimizer": torch.optim.SGD(again.parameters(), lr=0.1)}
    for generation in edldist.LiveGroup(state):
        with generation, edldist.Checkpointer(tmp_path) as checkpointer:
            assert generation.resume(checkpointer) == 2
            assert torch.equal(again.weight, model.weight)


def test_alone_an_error_of_the_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="of the loop"):
        for generation in edldist.LiveGroup({}):
            with generation:
                raise RuntimeError("of the loop")


def test_what_has_no_state_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"\['step'\] have no state_dict"):
        edldist.LiveGroup({"step": 3})  # type: ignore[dict-item]


def test_a_name_of_the_groups_state_cannot_be_a_place_too() -> None:
    for generation in edldist.LiveGroup({"model": nn.Linear(1, 1)}):
        with generation, pytest.raises(ConfigError, match=r"\['model'\] are names of the group's state"):
            generation.resume(model=nn.Linear(1, 1))


def test_damaged_terms_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TERMS_VARIABLE, '{"run": 1}')
    with pytest.raises(ConfigError, match="EDLDIST_LIVE=.* is not what 'edldist student --resize live' sets"):
        edldist.LiveGroup({})


def test_terms_come_back_as_they_were() -> None:
    terms = LiveTerms("tcp://127.0.0.1:1", "r", "train.py", 1, 4, None, 3.0)
    assert LiveTerms.read({TERMS_VARIABLE: terms.encode()}) == terms
    assert LiveTerms.read({}) is None


def test_a_rank_that_cannot_meet_anybody_leaves_no_door_open() -> None:
    terms = LiveTerms("nonsense", "r", "train.py", 1, 4, host="127.0.0.1")
    with pytest.raises(ConfigError, match="nonsense"):
        Roll(terms, lambda: None)
    assert not [each.name for each in threading.enumerate() if each.name.startswith("edldist-store")]


# --- operations of the group -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def collectives(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("collectives")
    return run_ranks("tests.integration.live_collective_rank", {}, 2, folder)


def test_a_live_group_does_what_any_group_does(collectives: list[dict[str, Any]]) -> None:
    for told in collectives:
        assert told["together"] == {
            "sum": [3.0, 3.0],
            "objects": [{"rank": 0}, {"rank": 1}],
            "whole": [0.0, 1.0],
            "told": [{"from": 1}],
            "maximum": 1,
            "gathered": [0, 1],
            "backend": "edldist_gloo",
        }
    first, second = (told["gradients"] for told in collectives)
    assert first == second and any(first), "DistributedDataParallel has not averaged"


@pytest.mark.parametrize("operation", ["all_reduce", "backward", "forward", "gather"])
def test_no_operation_waits_for_a_rank_that_stands_still(
    collectives: list[dict[str, Any]], operation: str
) -> None:
    """gloo's own time-out is ten minutes; the backward pass waits in torch's C++."""
    told = collectives[0][operation]
    assert told["change"] and told["told"], told
    assert told["kind"] in ("RegroupError", "RuntimeError")


def test_what_is_under_way_is_given_back_aside(collectives: list[dict[str, Any]]) -> None:
    assert "edldist-old-group" in collectives[0]["threads"]
