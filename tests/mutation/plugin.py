"""Plugins of pytest for whoever tries mutants."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.children import Progress

__all__ = ["OPTIONS", "OneFailureEnds", "QuickestFirst", "passed"]

# pytest's plugins were imported before, of which it would warn.
OPTIONS = (
    "-q",
    "-s",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
)


class OneFailureEnds:
    """The first failure ends the process; what runs is told, and properties try the same examples each time.

    Args:
        ends: else failures are reported as ever.
        number: of a test.
    """

    def __init__(self, progress: Progress, number: Callable[[pytest.Item], int], *, ends: bool) -> None:
        self._progress = progress
        self._number = number
        self._ends = ends

    def pytest_sessionstart(self) -> None:
        """After conftest.py, before a test is imported, which may have settings that come of these."""
        settings.register_profile(
            "mutation",
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),  # some judge how busy a machine is
        )
        settings.load_profile("mutation")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> object:
        self._progress.begin(self._number(item))
        done = yield
        self._progress.end()
        return done

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if self._ends and not passed(call):
            os._exit(1)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if self._ends and report.failed:
            os._exit(1)


class QuickestFirst:
    """Runs tests by what they take, as far as that is known."""

    def __init__(self, cpu_s: Mapping[str, float]) -> None:
        self._cpu_s = cpu_s

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self._cpu_s.get(item.nodeid, 0.0))


def passed(call: pytest.CallInfo[None]) -> bool:
    """Whether a phase of a test did, or skipped."""
    return call.excinfo is None or isinstance(
        call.excinfo.value, pytest.skip.Exception | pytest.xfail.Exception
    )
