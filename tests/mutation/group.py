"""Subjects that have the same tests: those are collected and measured once for all of them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.mutation.ahead import import_all
from tests.mutation.children import Children, Limit
from tests.mutation.collected import Collected, HandOff, Outcome, Trial, limit_of
from tests.mutation.module import ROOT, Finder, SubjectModule
from tests.mutation.plugin import OPTIONS, OneFailureEnds, QuickestFirst
from tests.mutation.subjects import path_of

__all__ = ["Group"]


class Group:
    """Some modules and the files of tests that stand for each of them.

    Args:
        show: what the tests print.
        imports: try the mutants of what is done at import, too, each of which costs an import of all tests.
    """

    def __init__(self, names: Sequence[str], tests: Sequence[str], show: bool, imports: bool) -> None:
        self._subjects = [SubjectModule(name) for name in names]
        self._tests = [path_of(each) for each in tests]
        self._show = show
        self._imports = imports

    def try_all(self, wanted: Callable[[str], bool], tell: Callable[[Trial], None]) -> None:
        """Try the mutants that are wanted (by label).

        Raises:
            SystemExit: tests fail without any change, or cannot be tried.
        """
        os.chdir(ROOT)
        children = Children(self._show)
        with tempfile.TemporaryDirectory(prefix="told-") as place:
            path = Path(place) / "handoff.json"
            if not (pid := children.begin()):
                _leave_with(lambda: self._collect(wanted, path, tell))
            children.end(pid, lambda test: Limit(1e9, 1e9))
            if not path.exists():
                raise SystemExit(f"{self._names()}: tests cannot be collected, or tried; see why with --show")
            found = HandOff.read(path)
        if found.failing:
            raise SystemExit(
                f"{self._names()}: tests fail without any change, each run alone; see them with --show: "
                f"{', '.join(found.failing)}"
            )
        if self._imports:
            self._import_anew(found, children, tell)
        else:
            for name, number in found.anew:
                tell(Trial(name, number, Outcome.LEFT_OUT, "", 0.0, 0))

    def _names(self) -> str:
        return ", ".join(subject.name for subject in self._subjects)

    def _collect(self, wanted: Callable[[str], bool], path: Path, tell: Callable[[Trial], None]) -> int:
        finder = Finder(self._subjects)
        finder.install()
        children = Children(self._show)
        collected = Collected(self._subjects, wanted, finder, children, path, tell)
        stops = OneFailureEnds(children.progress, collected.number, ends=not self._show)
        return int(pytest.main([*OPTIONS, *self._tests], plugins=[stops, collected]))

    def _import_anew(self, found: HandOff, children: Children, tell: Callable[[Trial], None]) -> None:
        """Try the mutants for which the tests have to be imported after the change, each in a fork."""
        if not found.anew:
            return
        import_all(found.modules)
        tests = sorted(found.cpu_s, key=lambda test: found.cpu_s[test])
        numbers = {test: number for number, test in enumerate(tests)}

        def number_of(item: pytest.Item) -> int:
            return numbers.get(item.nodeid, -1)

        limits = [limit_of(Limit(found.cpu_s[test], found.wall_s[test])) for test in tests]
        subjects = {subject.name: subject for subject in self._subjects}
        for name, number in found.anew:
            began = time.monotonic()
            # Few need more than the file that finds most, and to import all takes longer than to run them.
            for paths in ([found.best[name]], self._tests) if name in found.best else (self._tests,):
                if not (pid := children.begin()):
                    subjects[name].mutants[number].apply()
                    stops = OneFailureEnds(children.progress, number_of, ends=True)
                    plugins = [stops, QuickestFirst(found.cpu_s)]
                    _leave_with(partial(_run_anew, subjects[name], paths, plugins))
                ended = children.end(pid, lambda test: limits[test] if test >= 0 else Limit(60.0, 300.0))
                if ended.code != 0:
                    break
            outcome = Outcome.SURVIVED if ended.code == 0 else Outcome.KILLED
            by = tests[ended.test] if ended.code != 0 and ended.test >= 0 else ""
            by = f"time, {by}" if ended.took_too_long else by
            tell(Trial(name, number, outcome, by, time.monotonic() - began, len(tests)))


def _run_anew(subject: SubjectModule, paths: Sequence[str], plugins: list[object]) -> int:
    Finder([subject]).install()
    return int(pytest.main([*OPTIONS, *paths], plugins=plugins))


def _leave_with(run: Callable[[], int]) -> None:
    """End this process by what a call returns, which may be in one of its forks."""
    code = 1
    try:
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
