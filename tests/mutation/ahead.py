"""What tests import while they run is imported ahead of them, once, and not by each of many forks."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterable
from typing import NoReturn

from tests.mutation.children import Children, Limit

__all__ = ["import_all", "without_threads"]


def without_threads(names: Iterable[str], children: Children) -> list[str]:
    """Those of some modules beside which a process can be forked after their import.

    Others start a thread when they are imported (``pyarrow`` does, and ``datasets`` with it), or end the
    process. A fork tries it. The whole package of such a module is left out.
    """
    left = sorted(names)
    while True:
        if not (pid := children.begin()):
            _leave_with_first_thread(left, children)
        ended = children.end(pid, lambda module: Limit(60.0, 300.0))
        if ended.code == 0:
            return left
        package = left[ended.test].partition(".")[0]
        left = [name for name in left if name.partition(".")[0] != package]


def import_all(names: Iterable[str]) -> None:
    """Import what can be imported here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            try:
                importlib.import_module(name)
            except Exception:  # it was made by hand, or is of no use without what its importer did
                continue


def _leave_with_first_thread(names: Iterable[str], children: Children) -> NoReturn:
    code = 1
    try:
        for number, name in enumerate(names):
            children.progress.begin(number)
            import_all([name])
            if len(os.listdir("/proc/self/task")) > 1:
                break
        else:
            code = 0
    finally:
        os._exit(code)
