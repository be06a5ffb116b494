"""Which test runs which line is known, whichever thread or fork runs it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.mutation.reach import Calls, Reach

SOURCE = """
def first(flag):
    if flag:
        return 1
    return [value
            for value in range(2)]


def second():
    return 2
"""


@pytest.fixture
def made(tmp_path: Path) -> tuple[str, dict]:
    path = tmp_path / "made.py"
    path.write_text(SOURCE)
    names: dict = {}
    exec(compile(SOURCE, str(path), "exec"), names)
    return str(path), names


def test_lines_are_those_that_a_test_runs(made: tuple[str, dict]) -> None:
    path, names = made
    reach = Reach([path, __file__], 3)
    with reach:
        names["first"](True)
    reach.test = 2
    with reach:
        names["first"](False)
    names["second"]()
    of = {0: 0.0, 1: 0.0, 2: 0.0}
    assert reach.tests(path, range(2, 4), of) == [0, 2]
    assert reach.tests(path, range(4, 5), of) == [0]
    assert reach.tests(path, range(5, 7), of) == [2]
    assert reach.tests(path, range(9, 11), of) == []
    assert reach.tests(__file__, range(1, 40), of) == [], "another file has columns of its own"


def test_threads_and_forks_tell_too(made: tuple[str, dict]) -> None:
    path, names = made
    reach = Reach([path], 2)
    with reach:
        thread = threading.Thread(target=names["second"])
        thread.start()
        thread.join()
        if not (pid := os.fork()):
            reach.test = 1
            names["first"](True)
            os._exit(0)
        os.waitpid(pid, 0)
    assert reach.tests(path, range(10, 11), {0: 0.0, 1: 0.0}) == [0]
    assert reach.tests(path, range(4, 5), {0: 0.0, 1: 0.0}) == [1]


def test_code_that_is_called_is_known(made: tuple[str, dict]) -> None:
    path, names = made
    calls = Calls([path])
    names["first"](True)
    with calls:
        names["second"]()
    assert calls.code == {names["second"].__code__}
