"""The structure of a batch, made once more with something else in it, whatever its containers are."""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import types
import weakref
from collections import OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from edldist.student.memory.leaves import Leaf, of_plain_values

__all__ = ["ATOMS", "Rebuilding", "TooMuch", "attributes_of", "mapped", "state_base"]

ATOMS = frozenset(
    (
        *(str, int, float, bool, bytes, complex, type(None), type(Ellipsis), range, slice, object),
        *(torch.dtype, torch.device, torch.layout, torch.memory_format),
    )
)
"""Types of what is no container, and cannot change."""
_DICTS: tuple[Any, ...] = (OrderedDict, defaultdict, dict)
_NOTHING: Any = object()
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE


class TooMuch(Exception):
    """More was come across than there was room for."""


class Rebuilding:
    """One pass over a value, that makes its containers anew; nothing in the given ones changes.

    No method of a class that is not Python's own is called: its containers are filled by the functions of the
    built-in class below it, and get its attributes. A ``Counter`` adds when it is updated, other classes
    append, or turn keys into others. What is in several places stays one thing; what contains itself does.

    Args:
        keep_sizes: leave the batch sizes of packed sequences, which belong on the host wherever the rest is.
        lossy: make a plain dict of a mapping that nobody knows how to make.

    Attributes:
        memo: what was made of what, by ``id``, as ``copy.deepcopy`` keeps it.
        depth: in how many things it is that ``leaves`` does not look into.
        room: of how many more things something is to be made; then ``TooMuch`` is raised.
    """

    def __init__(self, keep_sizes: bool = False, lossy: bool = False) -> None:
        self._keep_sizes = keep_sizes
        self._lossy = lossy
        self.memo: dict[int, Any] = {}
        self._known: list[Any] = []  # they keep their ids as long as these are in the memo
        self.depth = 0
        self.room: float = float("inf")

    def leaf(self, part: Leaf) -> Any:
        """What is made of a tensor, or of an array of numbers."""
        return part

    def other(self, value: Any) -> Any:
        """What is made of something that is no container."""
        return value

    def of(self, value: Any) -> Any:
        """The same with something else in it.

        Raises:
            TooMuch: there was not room enough.
            RecursionError: it is nested too deep.
        """
        kind: Any = type(value)
        if kind in ATOMS:
            return value
        if (made := self.memo.get(id(value), _NOTHING)) is not _NOTHING:
            return made
        self.room -= 1
        if self.room < 0:
            raise TooMuch
        self._known.append(value)
        made = _way(kind)(self, value)
        return self.memo.setdefault(id(value), made)

    def instance(self, value: Any) -> Any:
        """Another object of a class, with what is made of its attributes; its class is not asked.

        Raises:
            TypeError: it is built on a class that is not written in Python.
        """
        kind: Any = type(value)
        made = self.memo[id(value)] = state_base(kind).__new__(kind)
        self._state(value, made)
        return made

    def _state(self, value: Any, made: Any) -> None:
        kind: Any = type(value)
        self.depth += 1
        try:
            if attributes := _attributes(value):
                own = _attributes(made)
                for name, item in attributes.items():
                    own[name] = self.of(item)
            for slot in _slots(kind):
                try:
                    item = slot.__get__(value)
                except AttributeError:  # nothing is there
                    continue
                slot.__set__(made, self.of(item))
        finally:
            self.depth -= 1

    def _made_of(self, value: Any, base: Any, *args: Any) -> Any:
        """A container of a class, empty, if the class is written in Python on top of ``base``."""
        made = base.__new__(type(value), *args)
        self.memo[id(value)] = made
        return made

    def _inside(self, items: Any) -> list[Any]:
        self.depth += 1
        try:
            return [self.of(item) for item in items]
        finally:
            self.depth -= 1

    # --- a way for each kind ----------------------------------------------------------------------------

    def _dict(self, value: Any) -> Any:
        made: dict[Any, Any] = {}
        self.memo[id(value)] = made
        for key, item in value.items():
            made[key if type(key) in ATOMS else self.of(key)] = self.of(item)
        return made

    def _dict_of_own(self, value: Any) -> Any:
        base = next(base for base in _DICTS if isinstance(value, base))
        try:
            made = self._made_of(value, base)
        except TypeError:
            return self._foreign_mapping(value)
        if base is defaultdict:
            defaultdict.__init__(made, value.default_factory)
        for key, item in base.items(value):
            base.__setitem__(made, self.of(key), self.of(item))
        self._state(value, made)
        return made

    def _user_dict(self, value: Any) -> Any:
        try:
            return self.instance(value)
        except TypeError:
            return self._foreign_mapping(value)

    def _mapping(self, value: Any) -> Any:
        return self._foreign_mapping(value) if self._lossy else self.other(value)

    def _foreign_mapping(self, value: Any) -> Any:
        """One whose class can only be asked to make one of a dict."""
        items = {key: self.of(item) for key, item in value.items()}
        try:
            made = type(value)(items)
            if [*made] == [*items] and all(made[key] is item for key, item in items.items()):
                return made
        except Exception:
            pass
        return items if self._lossy else self.other(value)

    def _list(self, value: Any) -> Any:
        items = list.__getitem__(value, slice(None))
        try:
            made = self._made_of(value, list)
        except TypeError:
            return self.other(value)
        if of_plain_values(items):
            list.extend(made, items)
        else:
            for item in items:
                list.append(made, self.of(item))
        if type(value) is not list:
            self._state(value, made)
        return made

    def _tuple(self, value: Any) -> Any:
        given = tuple.__getitem__(value, slice(None))
        if of_plain_values(given):
            return value
        sizes = given[1] if self._keep_sizes and isinstance(value, PackedSequence) else None
        items = [item if item is sizes else self.of(item) for item in given]
        if id(value) in self.memo:  # it contains itself
            return self.memo[id(value)]
        if type(value) is tuple:
            same = all(map(_same, items, given))
            return value if same else tuple(items)
        try:
            made = self._made_of(value, tuple, items)
        except TypeError:  # one of torch's or the system's
            return value if all(map(_same, items, given)) else type(value)(items)
        self._state(value, made)
        return made

    def _deque(self, value: Any) -> Any:
        made = self._made_of(value, deque)
        deque.__init__(made, (), value.maxlen)
        deque.extend(made, self._inside(deque.__iter__(value)))
        self._state(value, made)
        return made

    def _set(self, value: Any) -> Any:
        made = self._made_of(value, set)
        set.update(made, self._inside(set.__iter__(value)))
        self._state(value, made)
        return made

    def _frozenset(self, value: Any) -> Any:
        given = list(frozenset.__iter__(value))
        items = self._inside(given)
        return value if all(map(_same, items, given)) else frozenset.__new__(type(value), items)

    def _bytes(self, value: Any) -> Any:
        made = self._made_of(value, bytearray)
        bytearray.extend(made, value)
        self._state(value, made)
        return made

    def _numbers(self, value: Any) -> Any:
        made = self._made_of(value, array.array, value.typecode, array.array.__getitem__(value, slice(None)))
        self._state(value, made)
        return made

    def _memory(self, value: Any) -> Any:
        held = value.tobytes()
        whole = memoryview(held if value.readonly else bytearray(held))
        if value.format == "B" and value.ndim == 1:
            return whole
        try:
            return whole.cast(value.format, value.shape) if value.nbytes else whole.cast(value.format)
        except (TypeError, ValueError):  # a format that Python cannot make one of
            return self.other(value)

    def _data_class(self, value: Any) -> Any:
        try:
            return self.instance(value)
        except TypeError:
            return self.other(value)

    def _proxy(self, value: Any) -> Any:
        return types.MappingProxyType({self.of(key): self.of(item) for key, item in value.items()})

    def _tensor(self, value: Any) -> Any:
        return self.leaf(value)

    def _array(self, value: Any) -> Any:
        if not value.dtype.hasobject:
            return self.leaf(value)
        made = self.memo[id(value)] = value.copy(order="K")
        if made.dtype == object:
            self.depth += 1
            try:
                for place, item in np.ndenumerate(np.asarray(value)):
                    if type(item) not in ATOMS:
                        made[place] = self.of(item)
            finally:
                self.depth -= 1
        return made

    def _record(self, value: Any) -> Any:
        return value.copy()  # it may be one of an array's, in its memory

    def _method(self, value: Any) -> Any:
        owner = self.memo.get(id(value.__self__), value.__self__)
        return value if owner is value.__self__ else types.MethodType(value.__func__, owner)

    def _reference(self, value: Any) -> Any:
        owner = self.memo.get(id(value()))
        return value if owner is None or type(value) is not weakref.ref else weakref.ref(owner)

    def _atom(self, value: Any) -> Any:
        return value

    def _unknown(self, value: Any) -> Any:
        return self.other(value)


class _Mapped(Rebuilding):
    def __init__(self, change: Callable[[Tensor], Tensor], other: Callable[[Any], Any] | None) -> None:
        super().__init__(keep_sizes=True, lossy=True)
        self._change = change
        self._make = other

    def leaf(self, part: Leaf) -> Any:
        return self._change(part) if isinstance(part, Tensor) else part

    def other(self, value: Any) -> Any:
        return value if self._make is None else self._make(value)


def mapped(value: Any, change: Callable[[Tensor], Tensor], other: Callable[[Any], Any] | None = None) -> Any:
    """A structure with ``change`` applied to every tensor in it, once; nothing in the given one changes.

    Goes into mappings, named and other tuples, lists, data classes and arrays of objects. Anything else is
    passed on, or what ``other`` makes of it if that is given.
    """
    return _Mapped(change, other).of(value)


def _same(one: Any, other: Any) -> bool:
    return one is other


def _attributes(value: Any) -> Any:
    """Those of one object, past whatever its class makes of the question."""
    try:
        return object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None


def attributes_of(value: Any) -> list[Any]:
    """All that an object has as attributes, in its slots too."""
    found = list((_attributes(value) or {}).values())
    kind: Any = type(value)
    for slot in _slots(kind):
        with contextlib.suppress(AttributeError):  # nothing is there
            found.append(slot.__get__(value))
    return found


@functools.lru_cache(maxsize=4096)
def _slots(kind: type) -> tuple[Any, ...]:
    """The descriptors of the slots of a class that is written in Python."""
    return tuple(
        item
        for base in kind.__mro__
        if "__slots__" in vars(base) and base.__flags__ & _HEAP_TYPE
        for item in vars(base).values()
        if isinstance(item, types.MemberDescriptorType)
    )


@functools.lru_cache(maxsize=4096)
def state_base(kind: type) -> Any:
    """The class, not written in Python, on which one is built that has its state in attributes alone.

    Raises:
        TypeError: it has state elsewhere.
    """
    base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    if base not in (object, types.SimpleNamespace):
        raise TypeError(f"a {kind.__qualname__} is built on {base.__qualname__}")
    return base


@functools.lru_cache(maxsize=4096)
def _way(kind: type) -> Callable[[Rebuilding, Any], Any]:
    if kind is dict:
        return Rebuilding._dict
    for family, way in _WAYS:
        if issubclass(kind, family):
            return way
    if dataclasses.is_dataclass(kind):
        return Rebuilding._data_class
    return Rebuilding._unknown


_WAYS: tuple[tuple[Any, Callable[[Rebuilding, Any], Any]], ...] = (
    (Tensor, Rebuilding._tensor),
    (np.ndarray, Rebuilding._array),
    (np.void, Rebuilding._record),
    ((str, int, float, np.generic, type, types.FunctionType, types.BuiltinFunctionType), Rebuilding._atom),
    (dict, Rebuilding._dict_of_own),
    (list, Rebuilding._list),
    (tuple, Rebuilding._tuple),
    (deque, Rebuilding._deque),
    (set, Rebuilding._set),
    (frozenset, Rebuilding._frozenset),
    (bytearray, Rebuilding._bytes),
    (array.array, Rebuilding._numbers),
    (memoryview, Rebuilding._memory),
    (types.MappingProxyType, Rebuilding._proxy),
    (types.MethodType, Rebuilding._method),
    (weakref.ref, Rebuilding._reference),
    (UserDict, Rebuilding._user_dict),
    (Mapping, Rebuilding._mapping),
)
