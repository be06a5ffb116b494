"""A session of pytest that has imported and collected tests, and tries mutants instead of running them.

For each mutant it forks. The fork exchanges the functions that the mutant changes, and runs the tests that
reach the changed lines: those first that find much in little time. Which tests reach what is measured once,
each test in a fork of its own, so that none depends on what another one left in a cache.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import pytest

from tests.mutation.ahead import import_all, without_threads
from tests.mutation.children import Children, Limit
from tests.mutation.module import Finder, SubjectModule
from tests.mutation.reach import Calls, Reach
from tests.mutation.swapping import LiveFunctions, NotInFunctions

__all__ = ["Collected", "HandOff", "Outcome", "Trial", "limit_of"]

_IMPORT_ANEW = 77  # a child's exit code, as which pytest has none


class Outcome(IntEnum):
    KILLED = 1
    SURVIVED = 2
    LEFT_OUT = 3


@dataclass(frozen=True)
class Trial:
    """What became of a mutant.

    Attributes:
        by: the test that killed it; empty if none did, ``time`` if one hung.
        took_s: wall-clock time.
        tests: how many were to run.
    """

    subject: str
    number: int
    outcome: Outcome
    by: str
    took_s: float
    tests: int


@dataclass
class HandOff:
    """What a session found out for whoever imports the modules anew for some mutants.

    Attributes:
        failing: tests that fail without any change.
        modules: what tests import from elsewhere.
        cpu_s: what each test computes, by its id.
        wall_s: what each test lasts.
        anew: mutants of what is done when a module is imported: subject and number.
        best: by subject, the file of tests that killed most of its mutants.
    """

    failing: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    anew: list[tuple[str, int]] = field(default_factory=list)
    best: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self)))

    @classmethod
    def read(cls, path: Path) -> HandOff:
        return cls(**json.loads(path.read_text()))


def limit_of(took: Limit) -> Limit:
    """For how long a test may run that takes so much without a change, on a machine however busy."""
    return Limit(3 * took.cpu_s + 2.0, 10 * took.wall_s + 20.0)


class Collected:
    """The plugin that does it. Whatever fork a process finds itself in, it ends with pytest's exit code."""

    def __init__(
        self,
        subjects: Sequence[SubjectModule],
        wanted: Callable[[str], bool],
        finder: Finder,
        children: Children,
        handoff: Path,
        tell: Callable[[Trial], None],
    ) -> None:
        self._subjects = subjects
        self._wanted = wanted
        self._finder = finder
        self._children = children
        self._handoff = handoff
        self._tell = tell
        self._paths = [subject.path for subject in subjects]
        self._early = Calls(self._paths)
        self._early.__enter__()  # conftest.py imports subjects, too
        self._numbers: dict[str, int] = {}

    def number(self, item: pytest.Item) -> int:
        return self._numbers.get(item.nodeid, -1)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = session.items
        self._numbers = {item.nodeid: number for number, item in enumerate(items)}
        if session.testsfailed:
            return True
        told = HandOff()
        reach = Reach(self._paths, len(items))
        imported = self._handoff.with_suffix(".modules")
        gc.freeze()  # forks need not look through all that is here, and share it for longer
        for number, item in enumerate(items):
            reach.test = number
            if self._passes([item], told, reach, imported) is None:
                return True
        told.modules = self._import(imported)
        self._early.__exit__(None, None, None)
        gc.freeze()
        self._children.progress.keep(len(items))
        if not told.failing and self._passes(items, told) is None:
            return True
        for number, item in enumerate(items):
            took = self._children.progress.took(number)
            told.cpu_s[item.nodeid], told.wall_s[item.nodeid] = took.cpu_s, took.wall_s
        if not told.failing:
            gc.unfreeze()
            live = LiveFunctions(self._early.code)
            gc.freeze()
            for subject in self._subjects:
                if self._tried(subject, items, reach, live, told) is None:
                    return True
        told.write(self._handoff)
        return True

    def _passes(
        self,
        items: Sequence[pytest.Item],
        told: HandOff,
        reach: Reach | None = None,
        imported: Path | None = None,
    ) -> bool | None:
        """Run tests in a fork without a change, and note what they reach and import; None in that fork."""
        if not (pid := self._children.begin()):
            known = set(sys.modules)
            self._early.__exit__(None, None, None)
            with reach or contextlib.nullcontext():
                _run(items)
            if imported is not None:
                with imported.open("a") as file:
                    file.writelines(f"{name}\n" for name in sys.modules.keys() - known)
            return None
        ended = self._children.end(pid, lambda test: Limit(600.0, 900.0))
        if ended.code != 0 and reach is None:  # traced, a test may take longer than it allows
            told.failing.append(items[0].nodeid if len(items) == 1 else items[ended.test].nodeid)
        return True

    def _import(self, imported: Path) -> list[str]:
        """Import here what tests import while they run, so that not every fork has to."""
        import_all(without_threads(set(imported.read_text().split()), self._children))
        return [name for name in sys.modules if name.split(".")[0] not in ("edldist", "tests")]

    def _tried(
        self,
        subject: SubjectModule,
        items: Sequence[pytest.Item],
        reach: Reach,
        live: LiveFunctions,
        told: HandOff,
    ) -> bool | None:
        """Try all mutants of a module; None in a fork that tries one."""
        took = {number: told.cpu_s[item.nodeid] for number, item in enumerate(items)}
        limits = [limit_of(Limit(told.cpu_s[item.nodeid], told.wall_s[item.nodeid])) for item in items]
        kills: dict[str, Counter[int]] = {}
        for number, (mutant, label) in enumerate(zip(subject.mutants, subject.labels, strict=True)):
            if not self._wanted(label):
                continue
            began = time.monotonic()
            finders = kills.setdefault(mutant.where, Counter())
            tests = reach.tests(subject.path, mutant.lines, took)
            tests.sort(key=lambda test: (took[test] + 0.001) / (1 + 10 * finders[test]))
            if not (pid := self._children.begin()):
                mutant.apply()
                try:
                    live.change(self._finder.code[subject.path], subject.compiled())
                except NotInFunctions:
                    os._exit(_IMPORT_ANEW)
                except SyntaxError:
                    os._exit(1)
                _run([items[test] for test in tests])
                return None
            ended = self._children.end(pid, lambda test: limits[test] if test >= 0 else Limit(60.0, 300.0))
            if ended.code == _IMPORT_ANEW:
                told.anew.append((subject.name, number))
                continue
            if ended.code == pytest.ExitCode.INTERNAL_ERROR:
                raise RuntimeError(f"{subject.name}: pytest broke on {label}")
            killed = ended.code != 0
            by = items[ended.test].nodeid if killed and ended.test >= 0 else ""
            if killed and ended.test >= 0:
                finders[ended.test] += 1
            if ended.took_too_long:
                by = f"time, {by}"
            outcome = Outcome.KILLED if killed else Outcome.SURVIVED
            self._tell(Trial(subject.name, number, outcome, by, time.monotonic() - began, len(tests)))
        for test, _ in sum(kills.values(), Counter()).most_common(1):
            told.best[subject.name] = items[test].nodeid.partition("::")[0]
        return True


def _run(items: Sequence[pytest.Item]) -> None:
    for number, item in enumerate(items):
        following = items[number + 1] if number + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
