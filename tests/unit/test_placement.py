"""Who a process is in its group: told by the process group, else by torchrun's variables."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from edldist.errors import ConfigError
from edldist.ranks.placement import Placement, in_process_group, placement

ROOT = Path(__file__).resolve().parents[2]
ROUND = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job", "MASTER_ADDR": "h", "MASTER_PORT": "1"}


@pytest.fixture
def grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process group of three in which this is rank 2."""
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)


def test_without_any_hint_a_process_is_alone() -> None:
    assert placement({}) == placement({"RANK": "", "WORLD_SIZE": " "}) == Placement(0, 1, "")
    assert not in_process_group()


def test_torchruns_variables_say_who_it_is() -> None:
    here = placement({"RANK": "3", "WORLD_SIZE": "4"})
    assert (here.rank, here.world_size) == (3, 4)


@pytest.mark.usefixtures("grouped")
def test_the_process_group_is_preferred_to_the_variables() -> None:
    assert in_process_group()
    assert placement({"RANK": "0", "WORLD_SIZE": "1"}) == Placement(2, 3, "")
    assert placement({"RANK": "nonsense", "WORLD_SIZE": "none"}).rank == 2
    assert placement(ROUND | {"WORLD_SIZE": "1"}).generation == placement(ROUND).generation != ""


def test_ranks_of_one_round_share_a_generation_and_of_another_do_not() -> None:
    generations = [placement(ROUND | {"RANK": rank}).generation for rank in ("0", "1")]
    assert generations[0] == generations[1] != ""
    for variable in ("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT"):
        assert placement(ROUND | {variable: "2"}).generation not in ("", generations[0])


def test_generations_that_met_at_the_same_place_are_told_apart_by_their_agents_word() -> None:
    first, second = (ROUND | {"EDLDIST_GENERATION": f"job/{number}/node"} for number in (1, 2))
    assert placement(first).generation != placement(second).generation
    assert placement(first | {"RANK": "1"}).generation == placement(first).generation
    inside = first | {"MASTER_PORT": "2"}  # torchrun in a rank: its ranks inherit the word
    assert placement(inside).generation != placement(first).generation


def test_what_cannot_be_told_from_another_group_has_no_generation() -> None:
    assert placement(ROUND | {"WORLD_SIZE": "1"}).generation == ""
    assert placement({"WORLD_SIZE": "2"}).generation == ""
    assert placement({"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "job"}).generation == ""


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "-1"}, "RANK='-1'"),
        ({"RANK": "two", "WORLD_SIZE": "4"}, "RANK='two': needs a whole number from 0 to 1000000000"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0': needs a whole number from 1 to 1000000000"),
        ({"WORLD_SIZE": "2.0"}, "WORLD_SIZE='2.0'"),
        ({"RANK": "1"}, "RANK=1 is outside WORLD_SIZE=1"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 is outside WORLD_SIZE=2"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable(variables: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        placement(variables)


def test_nothing_else_in_the_framework_asks_who_it_is() -> None:
    asking = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "EDLDIST_GENERATION"}
    for path in (ROOT / "edldist").rglob("*.py"):
        if path.name == "placement.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant):
                assert node.value not in asking, f"{path} line {node.lineno}: ask ranks.placement"
            elif isinstance(node, ast.Attribute):
                assert node.attr not in ("get_rank", "get_world_size", "is_initialized") or (
                    "cuda" in ast.unparse(node)
                ), f"{path} line {node.lineno}: ask ranks.placement"
