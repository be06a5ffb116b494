"""Change an imported module's functions in place, where a mutant is inside of functions.

A function's code can be exchanged while it lives, whoever has imported, decorated or bound it. What a module
or a class body does when it is imported (constants, defaults, decorators) was done, and cannot be changed so.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Iterator, Set
from types import CodeType, FunctionType

__all__ = ["LiveFunctions", "NotInFunctions", "changes"]


class NotInFunctions(Exception):
    """A mutant changes what a module did when it was imported: it has to be imported anew."""


class LiveFunctions:
    """All functions of this process, by their code.

    Args:
        early: code that ran while tests were imported or collected, whose results may be kept anywhere.
    """

    def __init__(self, early: Set[CodeType]) -> None:
        self._early = early
        self._of: dict[int, list[FunctionType]] = {}
        for each in gc.get_objects():
            if type(each) is FunctionType:  # isinstance would ask proxies what they are
                self._of.setdefault(id(each.__code__), []).append(each)

    def change(self, old: CodeType, new: CodeType) -> None:
        """Let the functions of a module do what they do in another version of it.

        Raises:
            NotInFunctions: they cannot, or it is too late for some.
        """
        todo = list(changes(old, new))
        for before, after in todo:
            if before in self._early or id(before) not in self._of or before.co_freevars != after.co_freevars:
                raise NotInFunctions
        for before, after in todo:
            for function in self._of[id(before)]:
                function.__code__ = after


def changes(old: CodeType, new: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Outermost functions of a module, or of a class body, that differ from those of its other version.

    Raises:
        NotInFunctions: the module or a class body itself differs.
    """
    if _own(old) != _own(new):
        raise NotInFunctions
    for before, after in zip(_inner(old), _inner(new), strict=True):
        if not before.co_flags & inspect.CO_OPTIMIZED:
            yield from changes(before, after)
        elif _whole(before) != _whole(after):
            yield before, after


def _inner(code: CodeType) -> list[CodeType]:
    return [const for const in code.co_consts if isinstance(const, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    """What a code does, but for the functions inside it."""
    consts = [
        CodeType if isinstance(const, CodeType) else (type(const), repr(const)) for const in code.co_consts
    ]
    return (
        *(code.co_code, consts, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_flags, code.co_argcount, code.co_kwonlyargcount, code.co_posonlyargcount),
        *(code.co_exceptiontable, code.co_qualname),
    )


def _whole(code: CodeType) -> tuple[object, ...]:
    return (_own(code), *(_whole(inner) for inner in _inner(code)))
