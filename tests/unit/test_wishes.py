"""What people ask for, on the way between a job's folder and its coordinator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import LaunchError
from edldist.files import lock_file
from edldist_launch.contract import wishes as module
from edldist_launch.contract.wishes import Wishes, forget_wishes, read_wishes, write_wishes


def test_a_number_of_the_folder_is_told_until_the_coordinator_holds_it() -> None:
    wishes = Wishes()
    wishes.asked({"t": 3})
    assert wishes.adopt("one", {"t": None}) is False
    assert wishes.untold({"t": None}) == {"t": 3}
    assert wishes.untold({"t": None}) == {"t": 3}, "it was not told yet"
    wishes.told("t")
    assert wishes.untold({"t": 3}) == {}
    wishes.asked({})
    wishes.adopt("one", {"t": 3})
    assert wishes.untold({"t": 3}) == {"t": None}, "given back"


def test_a_new_coordinator_is_told_again() -> None:
    wishes = Wishes()
    wishes.asked({"t": 3, "student": 2})
    wishes.adopt("one", {"t": None, "u": None})
    wishes.told("t")
    assert wishes.adopt("two", {"t": None, "u": None}) is False
    assert wishes.untold({"t": None, "u": None}) == {"t": 3}
    assert wishes.kept == {"t": 3, "student": 2}


def test_a_number_that_was_asked_at_the_coordinator_is_kept_and_outlives_it() -> None:
    wishes = Wishes()
    wishes.adopt("one", {"t": None})
    assert wishes.adopt("one", {"t": 5}) is True
    assert wishes.kept == {"t": 5} and wishes.untold({"t": 5}) == {}
    wishes.adopt("two", {"t": None})
    assert wishes.untold({"t": None}) == {"t": 5}
    wishes.told("t")
    assert wishes.adopt("two", {"t": None}) is True and wishes.kept == {}, "and given back there"


def test_a_number_asked_at_a_new_coordinator_is_newer_than_what_was_kept() -> None:
    wishes = Wishes()
    wishes.asked({"t": 3})
    wishes.adopt("one", {"t": None})
    wishes.told("t")
    assert wishes.adopt("two", {"t": 7}) is True
    assert wishes.kept == {"t": 7} and wishes.untold({"t": 7}) == {}


def test_a_number_that_is_refused_is_not_told_again() -> None:
    wishes = Wishes()
    wishes.asked({"t": 99})
    wishes.refused("t")
    assert wishes.adopt("two", {"t": None}) is False
    assert wishes.untold({"t": None}) == {} and wishes.kept == {}


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("file"), st.one_of(st.none(), st.integers(0, 3))),
        st.tuples(st.just("there"), st.one_of(st.none(), st.integers(0, 3))),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("turn"), st.none()),
    ),
    max_size=20,
)


@given(_STEPS)
def test_folder_and_coordinator_agree_on_what_was_asked_last(steps: list[tuple[str, int | None]]) -> None:
    """Between two turns one person asks at most: of two, nobody could tell who was the later."""
    wishes, incarnation, asked = Wishes(), 0, None
    held: int | None = None

    def turn() -> None:
        nonlocal held
        wishes.adopt(str(incarnation), {"t": held})
        for group, number in wishes.untold({"t": held}).items():
            held = number
            wishes.told(group)

    turn()
    for what, number in steps:
        turn()
        if what == "file":
            asked = number
            wishes.asked({} if number is None else {"t": number})
        elif what == "there":
            asked = held = number
        elif what == "restart":
            incarnation, held = incarnation + 1, None
        turn()
        assert (wishes.kept.get("t"), held) == (asked, asked)


def test_numbers_are_written_beside_those_of_others(tmp_path: Path) -> None:
    assert read_wishes(tmp_path) == {}
    write_wishes(tmp_path, {"a": 1, "b": 2})
    write_wishes(tmp_path, {"a": None, "c": 3})
    assert read_wishes(tmp_path) == {"b": 2, "c": 3}
    forget_wishes(tmp_path)
    forget_wishes(tmp_path)
    assert read_wishes(tmp_path) == {}


def test_writers_at_the_same_time_lose_nothing_of_each_other(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from edldist_launch.contract.wishes import write_wishes\n"
        "for number in range(20): write_wishes(Path(sys.argv[1]), {f'{sys.argv[2]}{number}': number})\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "xyz"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    numbers = read_wishes(tmp_path)
    assert numbers is not None and len(numbers) == 60


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "1"}', '{"a": true}', '{"a": 1.5}', "[" * 9999])
def test_a_file_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "asked.json").write_text(text)
    assert read_wishes(tmp_path) is None
    write_wishes(tmp_path, {"a": 2})
    assert json.loads((tmp_path / "asked.json").read_text()) == {"a": 2}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchError, match=r"cannot write .*nowhere/asked.json: No such file"):
        write_wishes(tmp_path / "nowhere", {"a": 1})
    monkeypatch.setattr(module, "LOCK_S", 0.05)
    with (tmp_path / ".asked.json.lock").open("a") as lock:
        assert lock_file(lock.fileno(), tmp_path)
        with pytest.raises(LaunchError, match="has held the lock"):
            write_wishes(tmp_path, {"a": 1})
