"""The containers of a batch: what a data loader may fill again with other tensors and numbers."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import gc
import logging
import threading
import types
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edldist.errors import InputError
from edldist.student.memory.leaves import Leaf, leaves
from edldist.student.memory.structure import ATOMS, Rebuilding, TooMuch, attributes_of, state_base

__all__ = ["LeftContainer", "Taken", "copied", "hanging_on", "taken_over"]

logger = logging.getLogger(__name__)

ROOM = 2000
"""So many things that hang on one object of an own class are made anew with it; with more it is left."""

_SERVICES = (
    *(enum.Enum, BaseException, types.ModuleType, logging.Logger, threading.Thread),
    *(torch.nn.Module, torch.Generator, torch.utils.data.Dataset, torch.utils.data.Sampler),
    *(torch.utils.data.DataLoader, type(threading.Lock()), type(threading.RLock())),
)
"""What does things, or is the only one of its kind: no data, whatever is in it."""

_ELSEWHERE = (*_SERVICES, type, types.FunctionType, weakref.ref)
"""What leads away from a batch."""

_TRIES = 3
"""So many large ones of a class are tried in a batch; its others are left, too."""

_said_of: weakref.WeakSet[type] = weakref.WeakSet()


class LeftContainer:
    """An object of a batch that may be filled again and was left as it is, and the tensors in it."""

    __slots__ = ("_holder", "tensors")

    def __init__(self, holder: Any) -> None:
        self._holder = holder
        self.tensors = _tensors_of(holder)

    def check(self) -> str | None:
        """What is wrong if it holds other tensors than it did."""
        now = _tensors_of(self._holder)
        if [id(part) for part in now] == [id(part) for part in self.tensors]:
            return None
        return f"a {type(self._holder).__qualname__} in a batch was filled with other tensors"


class Taken(NamedTuple):
    """A batch in containers that are nobody else's.

    Attributes:
        batch: the same tensors, arrays and values, in containers of the same types.
        parts: its ``leaves``.
        left: objects with tensors in them that nobody knows how to make another of.
        hidden: tensors and arrays in it that ``leaves`` may not come across.
    """

    batch: Any
    parts: list[Leaf]
    left: list[LeftContainer]
    hidden: list[Leaf]


def taken_over(batch: Any) -> Taken:
    """Put what is in a batch into containers of its own, of the same types; no tensor and no array is copied.

    Objects of own classes are containers too: others are made, with the same attributes, past their
    constructors. Those that say themselves how they are copied are asked, and those with state that Python
    does not see stay what they are.
    """
    if (flat := _taken_flat(batch)) is not None:
        return flat
    taking = _Taking()
    try:
        made = taking.of(batch)
        others, hidden = taking.left, taking.hidden
    except Exception:
        # A type of container with an own idea of how one is made: leave it to the one that made it.
        made, others, hidden = batch, [batch], []
    left = [holder for holder in map(LeftContainer, others) if holder.tensors]
    return Taken(made, leaves(made), left, hidden)


def _taken_flat(batch: Any) -> Taken | None:
    """What most batches are is quickly done: a tensor, or a dict, list or tuple of tensors and plain values.

    Returns:
        None for any other, and where one tensor is in two places.
    """
    kind = type(batch)
    if kind is Tensor:
        return Taken(batch, [batch], [], [])
    if kind is dict:
        if not all(type(key) in ATOMS for key in batch):
            return None
        items = batch.values()
    elif kind is list or kind is tuple:
        items = batch
    else:
        return None
    parts: list[Leaf] = []
    for item in items:
        if type(item) is Tensor:
            parts.append(item)
        elif type(item) not in ATOMS:
            return None
    if len({*map(id, parts)}) < len(parts):
        return None
    return Taken(kind(batch), parts, [], [])


def copied(batch: Any) -> Any:
    """A batch in memory of its own, in the same structure.

    Raises:
        InputError: something in it cannot be copied.
    """
    try:
        return _Copying().of(batch)
    except RecursionError as exc:
        raise InputError(
            f"copy_batches=True copies all that is in a batch, and a {type(batch).__qualname__} of the data "
            "loader is nested too deep for it: let it yield a flatter one"
        ) from exc


def hanging_on(batch: Any) -> list[Leaf]:
    """The tensors and arrays that hang on a batch, wherever; none of them where too much does."""
    try:
        return _reached(batch)
    except TooMuch:
        return []


class _Taking(Rebuilding):
    """Attributes: what was left as it was, and tensors where ``leaves`` does not look."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[Any] = []
        self.hidden: list[Leaf] = []
        self._large: Counter[type] = Counter()

    def leaf(self, part: Leaf) -> Any:
        if self.depth:
            self.hidden.append(part)
        return part

    def other(self, value: Any) -> Any:
        kind: Any = type(value)
        way = _way(kind)
        if way == "stays" or (way == "attributes" and not attributes_of(value)):
            return value
        if way == "none" or self._large[kind] >= _TRIES:
            self.left.append(value)
            return value
        return self._limited(value, self.instance if way == "attributes" else self._asked)

    def _limited(self, value: Any, make: Callable[[Any], Any]) -> Any:
        """What is made of an object, or the object itself where too much hangs on it."""
        before, room = (len(self.memo), len(self.left), len(self.hidden)), self.room
        if outermost := room > ROOM:
            self.room = ROOM
        try:
            return make(value)
        except TooMuch:
            if not outermost:
                raise
            self._large[type(value)] += 1
            _say_too_much(type(value))
        except Exception:
            pass  # it is not like others of Python's
        finally:
            if outermost:
                self.room = room
        self._back_to(*before)
        self.left.append(value)
        return value

    def _asked(self, value: Any) -> Any:
        """A copy as the class makes it, of all but tensors and arrays; if it cannot, of its attributes."""
        before = len(self.memo), len(self.left), len(self.hidden)
        shared = {id(part): part for part in _reached(value)}
        self.memo.update(shared)
        try:
            made = copy.deepcopy(value, self.memo)
        except Exception:
            self._back_to(*before)
            return self.instance(value)
        self.hidden.extend(part for part in _reached(made) if id(part) in shared)
        return made

    def _back_to(self, made: int, left: int, hidden: int) -> None:
        """Forget what was made of something that is not complete."""
        while len(self.memo) > made:
            self.memo.popitem()
        del self.left[left:], self.hidden[hidden:]


class _Copying(Rebuilding):
    """Makes other tensors and arrays, too."""

    def leaf(self, part: Leaf) -> Any:
        if not isinstance(part, Tensor):
            return part.copy(order="K")
        try:
            return part.clone()
        except (RuntimeError, NotImplementedError, TypeError):
            return self._deep(part, f"{part.dtype}, which torch cannot clone")

    def other(self, value: Any) -> Any:
        kind: Any = type(value)
        way = _way(kind)
        if way == "stays" or (way == "attributes" and not attributes_of(value)):
            return value
        if way == "attributes":
            return self.instance(value)
        before = len(self.memo)
        try:
            return self._deep(value, "")
        except InputError:
            if way == "none":
                raise
            while len(self.memo) > before:
                self.memo.popitem()
            return self.instance(value)

    def _deep(self, value: Any, what: str) -> Any:
        try:
            return copy.deepcopy(value, self.memo)
        except RecursionError:
            raise
        except Exception as exc:
            raise InputError(
                f"copy_batches=True copies all that is in a batch, and a {type(value).__qualname__} in one "
                f"cannot be copied ({what or exc}): leave it out of the batch, or put what it holds into "
                "lists, dicts, tensors or arrays"
            ) from exc


def _say_too_much(kind: type) -> None:
    if kind in _said_of:
        return
    _said_of.add(kind)
    logger.warning(
        "on a %s in the batch hang more than %d things: it is passed on as it is, and where the data loader "
        "fills it again while batches wait for their labels that may go unnoticed. Put into batches what is "
        "theirs alone",
        kind.__qualname__,
        ROOM,
    )


@functools.lru_cache(maxsize=4096)
def _way(kind: Any) -> str:
    """How to make another object of a class: ``attributes``, ``asks``, ``none``; ``stays``: there is no need.

    One that is made from its attributes never learns of it. A class with a finaliser would be finalised
    twice, and one that is pickled in its own way may be more than its attributes.
    """
    if issubclass(kind, (*_SERVICES, type)):
        return "stays"
    if getattr(kind, "__del__", None) is not None:
        return "none"
    if getattr(kind, "__deepcopy__", None) is not None:
        return "asks"
    try:
        base = state_base(kind)
    except TypeError:
        return "none"
    own = ("__reduce__", "__reduce_ex__")
    if kind is object or any(getattr(kind, name) is not getattr(base, name) for name in own):
        return "none"
    return "attributes"


def _reached(holder: Any) -> list[Leaf]:
    """The tensors and arrays that hang on an object, wherever; as far as there is room."""
    found: list[Leaf] = []
    seen = {id(holder)}
    stack = [holder]
    while stack:
        top = stack.pop()
        for item in top.flat if isinstance(top, np.ndarray) else gc.get_referents(top):
            if id(item) in seen or isinstance(item, _ELSEWHERE):
                continue
            seen.add(id(item))
            if len(seen) > ROOM:
                raise TooMuch
            if isinstance(item, np.ndarray) and item.dtype.hasobject:
                stack.append(item)
            elif isinstance(item, (Tensor, np.ndarray)):
                found.append(item)
            elif gc.is_tracked(item):
                stack.append(item)
    return found


def _tensors_of(holder: Any) -> list[Leaf]:
    if isinstance(holder, (Mapping, list, tuple)) or dataclasses.is_dataclass(holder):
        return leaves(holder)
    return [value for value in attributes_of(holder) if isinstance(value, (Tensor, np.ndarray))]
