"""Every scenario leaves the trace that is written down (``python -m tests.scenarios --rewrite``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.scenario import Scenario, played

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_written(path: Path) -> None:
    assert played(path) == path.read_text()


def test_all_the_stories_are_there() -> None:
    assert len(STORIES) >= 10


def test_a_changed_expectation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("# A job.\njob\n----\nnothing happens\n\n")
    assert "group 1 of 1 forms" in played(path) != path.read_text()


def test_a_command_that_is_none_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Scenario().play("conquer the world")
