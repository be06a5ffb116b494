"""Change modules in small ways and see whether tests notice: ``python -m tests.mutation [MODULE ...]``.

A mutant is one change of one module. The unit tests of that module run on it, in a process of its own, and
*kill* it when one fails, or does not end. Those that survive are printed, but for those that ``accepted.txt``
names, with the reason why no test can, or should, tell them from the original. The exit code is 1 if there
are others, or if that file names some that do not survive.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from tests.mutation.mutations import Mutant, mutants
from tests.mutation.subjects import SUBJECTS

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Path(__file__).with_name("accepted.txt")
MEMORY_BYTES = 8 << 30  # of address space, on top of what is in use
PATIENCE_S = 5.0  # on top of four times what the tests take


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as student/queue/task.py (all)")
    parser.add_argument("--only", default="", metavar="TEXT", help="those in whose name this is")
    parser.add_argument("--show", action="store_true", help="show what the tests print")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.modules if name not in SUBJECTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    accepted = read_accepted(ACCEPTED.read_text())
    bad = 0
    counts = []
    for name in options.modules or SUBJECTS:
        known = accepted.get(name, {})
        tried, survivors = Subject(name, options.show).try_all(options.only, known)
        for each in known:
            if each in tried and each not in survivors or each not in tried and not options.only:
                print(f"  {name}  {each}: is killed, or gone; take it out of {ACCEPTED.name}")
                bad += 1
        bad += len([each for each in survivors if each not in known])
        counts.append(f"{name:32} {len(tried):4} mutants, {len(survivors):3} survive")
    print(*counts, f"{bad} to look at", sep="\n")
    return 1 if bad else 0


def read_accepted(text: str) -> dict[str, dict[str, str]]:
    """By module and mutant, why it survives. A line ``== MODULE``, a line ``# REASON``, lines of mutants."""
    accepted: dict[str, dict[str, str]] = {}
    module = reason = ""
    for line in text.splitlines():
        if line.startswith("== "):
            module = line[3:]
        elif line.startswith("# "):
            reason = line[2:]
        elif line:
            accepted.setdefault(module, {})[line] = reason
    return accepted


class Subject:
    """A module with its tests."""

    def __init__(self, name: str, show: bool) -> None:
        self._name = name
        self._show = show
        self._path = ROOT / "edldist" / name
        self._tree = ast.parse(self._path.read_text())
        self._tests = [f"tests/unit/test_{each}.py" for each in SUBJECTS[name]]
        self._patience_s = 300.0

    def try_all(self, only: str, known: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """The mutants in whose name ``only`` is, and those of them that survive."""
        self._warm_up()
        seen: Counter[str] = Counter()
        tried: list[str] = []
        survivors: list[str] = []
        for mutant in list(mutants(self._tree)):
            seen[str(mutant)] += 1
            label = str(mutant) + (f"  ({seen[str(mutant)]})" if seen[str(mutant)] > 1 else "")
            if only not in label:
                continue
            tried.append(label)
            if self._survives(mutant):
                survivors.append(label)
                if label not in known:
                    print(f"  {self._name}:{mutant.line}  {label}", flush=True)
        return tried, survivors

    def _warm_up(self) -> None:
        """Import here what the tests import of others, so that not every mutant has to."""
        read, write = os.pipe()
        passed = self._survives(None, tell=write)
        os.close(write)
        with os.fdopen(read) as pipe:
            for module in json.loads(pipe.readline() or "[]"):
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
        began = time.monotonic()
        if not (passed and self._survives(None)):
            raise SystemExit(f"{self._name}: its tests fail without any change; see them with --show")
        self._patience_s = PATIENCE_S + 4 * (time.monotonic() - began)

    def _survives(self, mutant: Mutant | None, tell: int | None = None) -> bool:
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.setsid()
                code = self._run(mutant)
                if tell is not None:
                    foreign = [each for each in sys.modules if each.split(".")[0] not in ("edldist", "tests")]
                    os.write(tell, f"{json.dumps(foreign)}\n".encode())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        deadline = time.monotonic() + self._patience_s
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status == 0
            time.sleep(0.005)
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False

    def _run(self, mutant: Mutant | None) -> int:
        """Run the tests with a changed module, in this process."""
        if mutant is not None:
            mutant.apply()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        if not self._show:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nowhere, number)
        os.chdir(ROOT)
        sys.meta_path.insert(0, _Finder(self._path, self._tree))
        # pytest's plugins were imported before, of which it would warn.
        options = ["-x", "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning", "-p", "no:cacheprovider"]
        return int(pytest.main([*options, "-p", "tests.mutation.quick", *self._tests]))


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self._path = str(path)
        self._module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self._tree = tree

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self._path)

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = self._path
        exec(compile(self._tree, self._path, "exec"), module.__dict__)


if __name__ == "__main__":
    sys.exit(main())
