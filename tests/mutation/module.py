"""A module that is checked: its mutants by name, and its import from a tree instead of its file."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from tests.mutation.mutations import Mutant, mutants

__all__ = ["ROOT", "Finder", "SubjectModule"]

ROOT = Path(__file__).resolve().parents[2]


class SubjectModule:
    """A module of ``edldist`` and all its mutants, which are applied to its tree for good."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(ROOT / "edldist" / name)
        self.module = ".".join(("edldist", *Path(name).with_suffix("").parts))
        self._tree = ast.parse(Path(self.path).read_text())
        self.mutants: list[Mutant] = list(mutants(self._tree))
        self.labels = _numbered([str(mutant) for mutant in self.mutants])

    def compiled(self) -> CodeType:
        """The tree's code, changed by whatever mutant was applied to it."""
        return compile(self._tree, self.path, "exec", dont_inherit=True)


def _numbered(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name + (f"  ({seen[name]})" if seen[name] > 1 else ""))
    return labels


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports subjects from their trees.

    Attributes:
        code: of each module that was imported, by its file: what its functions' code is part of.
    """

    def __init__(self, subjects: Sequence[SubjectModule]) -> None:
        self._subjects = {subject.module: subject for subject in subjects}
        self.code: dict[str, CodeType] = {}

    def install(self) -> None:
        if early := [module for module in self._subjects if module in sys.modules]:
            raise RuntimeError(f"imported before they could be changed: {', '.join(early)}")
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if (subject := self._subjects.get(fullname)) is None:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=subject.path)

    def exec_module(self, module: ModuleType) -> None:
        subject = self._subjects[module.__name__]
        module.__file__ = subject.path
        code = self.code[subject.path] = subject.compiled()
        exec(code, module.__dict__)
