"""A mutant inside of functions takes effect on a module that was imported; others are told apart."""

from __future__ import annotations

import ast
import functools
from types import CodeType, ModuleType

import pytest

from tests.mutation.mutations import Mutant, mutants
from tests.mutation.swapping import LiveFunctions, NotInFunctions, changes

SOURCE = """
import functools

LIMIT = 10


def small(value, limit=5):
    return any(value < limit for _ in range(1))


@functools.lru_cache
def cached(value):
    return value + 2


class Box:
    size = 7

    def __init__(self, held):
        super().__init__()
        self.held = held

    @property
    def full(self):
        return self.held > self.size

    @staticmethod
    def make():
        return Box(20)


def adder(more):
    def add(value):
        return value + more

    return add


bound = adder(3)
"""


class Imported:
    """The module as it was imported, and its mutants."""

    def __init__(self) -> None:
        self.code = compile(SOURCE, "made", "exec")
        self.module = ModuleType("made")
        exec(self.code, self.module.__dict__)
        self.live = LiveFunctions(frozenset())

    def change(self, text: str) -> None:
        self.live.change(self.code, _changed(text))


def _changed(text: str) -> CodeType:
    tree = ast.parse(SOURCE)
    [mutant] = [each for each in mutants(tree) if str(each).startswith(text)]
    mutant.apply()
    return compile(tree, "made", "exec")


def test_functions_do_otherwise_for_whoever_holds_them_already() -> None:
    made = Imported()
    small, box = made.module.small, made.module.Box(8)
    partial = functools.partial(small, limit=3)
    made.change("small: value < limit  ->  value <= limit")
    assert small(5) and partial(3) and not small(6)
    made.change("Box.full: self.held > self.size")
    made.module.Box.size = 8
    assert box.full, "the last change alone counts: >="
    made.change("cached: value + 2  ->  value - 2")
    assert made.module.cached(5) == 3
    made.change("Box.__init__: self.held = held  ->  pass")
    assert not hasattr(made.module.Box.make(), "held")


@pytest.mark.parametrize("text", ["module: 10", "small: 5", "Box: 7", "module: 3"])
def test_what_is_done_at_import_cannot_be_changed_any_more(text: str) -> None:
    with pytest.raises(NotInFunctions):
        Imported().change(text)


def test_nor_can_a_function_that_was_called_while_tests_were_imported() -> None:
    made = Imported()
    made.live = LiveFunctions(frozenset([made.module.adder.__code__]))
    with pytest.raises(NotInFunctions):
        made.change("adder.add: value + more")


def test_nor_one_that_nobody_has_any_more_or_whose_cells_are_others() -> None:
    made = Imported()
    del made.module.Box.full, made.live
    made.live = LiveFunctions(frozenset())
    with pytest.raises(NotInFunctions):
        made.change("Box.full: self.held > self.size")
    with pytest.raises(NotInFunctions):
        made.change("Box.__init__: super().__init__()  ->  pass")


def test_every_mutant_changes_one_function_or_what_is_done_at_import() -> None:
    old = compile(SOURCE, "made", "exec")
    inside = []
    for number in range(len(list(mutants(ast.parse(SOURCE))))):
        tree = ast.parse(SOURCE)
        mutant: Mutant = list(mutants(tree))[number]
        mutant.apply()
        try:
            [(before, after)] = changes(old, compile(tree, "made", "exec"))
        except NotInFunctions:
            continue
        assert before.co_name == after.co_name
        assert mutant.lines.start in range(before.co_firstlineno, before.co_firstlineno + 5), mutant
        inside.append(before.co_name)
    assert set(inside) == {"small", "cached", "__init__", "full", "make", "adder"}
