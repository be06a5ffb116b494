"""From a data loader's batch to what each teacher sees: named tensors with the samples first, texts too."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.student.inputs.route import Owners, Route
from edldist.student.inputs.sequences import PackedSequences, Sequences
from edldist.wire.texts import are_texts, pack_texts

__all__ = [
    "InputSelector",
    "Inputs",
    "InputsByTeacher",
    "PlacedInputs",
    "Seen",
    "TeacherInputSelector",
    "pick",
]

Key = str | int
PlainInputs = Key | Sequence[Key] | Callable[[Any], Mapping[str, Tensor]] | None
Inputs = PlainInputs | Sequences
InputsByTeacher = Inputs | Mapping[str, Inputs]


class PlacedInputs(NamedTuple):
    """What a teacher sees of a batch of which the other samples go to others.

    Attributes:
        tensors: by name, its samples first.
        samples: how many they are.
        lengths, asked: None: a sample is one row, with one of labels.
        places: int64 [B]: the row of each of the batch's samples, or -1; None if it has none of them.
    """

    tensors: dict[str, Tensor]
    samples: int
    lengths: None = None
    asked: None = None
    places: Tensor | None = None


class Seen(NamedTuple):
    """What teachers see of a batch.

    Attributes:
        tensors: what all see that are not in ``apart``, samples first.
        samples: how many the batch has: as many as the teacher that sees most.
        apart: of teachers that see something else: tensors, number of samples, and more of sequences and of
            samples that are routed.
    """

    tensors: dict[str, Tensor]
    samples: int
    apart: Mapping[str, tuple[dict[str, Tensor], int] | PlacedInputs | PackedSequences]


class TeacherInputSelector:
    """Picks what each teacher sees out of a batch.

    Args:
        inputs: see ``InputSelector``; or one of these for every teacher, by name. A teacher may see a part of
            the samples then, none of them too, and gets labels of these.
        teachers: their names.
        route: to which of them each sample goes; None: to all of them.

    Raises:
        ConfigError: an entry cannot be, or the names are not those of the teachers.
    """

    def __init__(self, inputs: InputsByTeacher, teachers: Sequence[str], route: Route | None = None) -> None:
        self._teachers = tuple(teachers)
        self._route = route
        self._everyone: InputSelector | None = None
        self._each: dict[str, InputSelector] = {}
        self._sequences: dict[str, Sequences] = {}
        if isinstance(inputs, Sequences):
            self._sequences = dict.fromkeys(teachers, inputs)
        elif not isinstance(inputs, Mapping):
            self._everyone = InputSelector(inputs)
        elif inputs.keys() == set(teachers):
            for teacher, its in inputs.items():
                if isinstance(its, Sequences):
                    self._sequences[teacher] = its
                else:
                    self._each[teacher] = InputSelector(its)
        else:
            raise ConfigError(
                f"inputs has entries for {sorted(inputs, key=str)}, and the teachers are {sorted(teachers)}: "
                "give each of them one, or the same to all without a mapping"
            )

    def __call__(self, batch: Any) -> Seen:
        """What is seen of a batch.

        Raises:
            InputError: see ``InputSelector`` and ``Route``.
        """
        if self._route is not None:
            return self._routed(batch, self._route)
        if self._everyone is not None:
            return Seen(*self._everyone(batch), {})
        each = {teacher: select(batch) for teacher, select in self._each.items()}
        tensors: dict[str, Tensor] = {}
        samples = 0
        if each:
            most = max(each, key=lambda teacher: each[teacher][1])
            tensors, samples = each.pop(most)
        packed: dict[str, PackedSequences] = {}
        made: dict[int, tuple[PackedSequences, int]] = {}  # several teachers may see the same
        for teacher, pack in self._sequences.items():
            if id(pack) not in made:
                made[id(pack)] = pack(batch, pick)
            view, batch_samples = made[id(pack)]
            packed[teacher] = view
            samples = max(samples, batch_samples)
        return Seen(tensors, samples, {**each, **packed})

    def _routed(self, batch: Any, route: Route) -> Seen:
        """Each sample is seen by one teacher."""
        every = dict.fromkeys(self._teachers, self._everyone) if self._everyone is not None else self._each
        plain: dict[int, tuple[dict[str, Tensor], int]] = {}  # several teachers may see the same
        for select in every.values():
            if id(select) not in plain:
                plain[id(select)] = select(batch)
        counts = {count for _, count in plain.values()}
        counts |= {pack.count(batch, pick) for pack in self._sequences.values()}
        if len(counts) != 1:
            raise InputError(
                f"teachers see {' or '.join(map(str, sorted(counts)))} samples of the batch: with route= all "
                "see the same, of which each labels its own"
            )
        (samples,) = counts
        owners = route(batch, samples, functools.partial(pick, argument="route"))
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=len(self._teachers)))
        sorted_ = {key: (_in_order(tensors, order), samples) for key, (tensors, _) in plain.items()}
        apart: dict[str, PlacedInputs | PackedSequences] = {}
        for place, teacher in enumerate(self._teachers):
            first, stop = int(ends[place - 1]) if place else 0, int(ends[place])
            if teacher in self._sequences and (first < stop or not samples):
                apart[teacher], _ = self._sequences[teacher](batch, pick, owners == place)
            elif first == stop:
                apart[teacher] = PlacedInputs({}, 0)
            else:
                tensors, _ = sorted_[id(every[teacher])]
                rows = {name: tensor[first:stop] for name, tensor in tensors.items()}
                places = np.full(samples, -1, np.int64)
                places[order[first:stop]] = np.arange(stop - first)
                apart[teacher] = PlacedInputs(rows, stop - first, places=torch.from_numpy(places))
        return Seen({}, samples, apart)


def _in_order(tensors: Mapping[str, Tensor], order: Owners) -> dict[str, Tensor]:
    """Samples in another order; the tensors themselves if it is the one that they have."""
    if (order[1:] > order[:-1]).all():
        return dict(tensors)
    rows = torch.from_numpy(order)
    return {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in tensors.items()}


class InputSelector:
    """Picks the teacher's inputs out of a batch.

    Args:
        inputs: a key or attribute of the batch, an index, several of them, or a callable that
            returns a dict. None: the batch itself, when it is one tensor. A key names the keyword
            under which the model gets the tensor; indices are passed by position, in the order given.
    """

    def __init__(self, inputs: PlainInputs = None) -> None:
        self._callable: Callable[[Any], Mapping[str, Tensor]] | None = None
        self._keys: dict[str, Key] = {}  # by the name that travels: digits are positions
        if inputs is None:
            return
        if callable(inputs):
            self._callable = inputs
            return
        several = isinstance(inputs, Sequence) and not isinstance(inputs, str)
        keys: tuple[Any, ...] = tuple(inputs) if several else (inputs,)  # type: ignore[arg-type]
        bad = [key for key in keys if not isinstance(key, (str, int)) or isinstance(key, bool) or key == ""]
        if bad or not keys or len(set(keys)) != len(keys):
            raise ConfigError(
                f"inputs={inputs!r}: use a key, an index, a tuple of different ones, or a callable"
            )
        positions = itertools.count()
        self._keys = {str(next(positions)) if isinstance(key, int) else key: key for key in keys}

    def __call__(self, batch: Any) -> tuple[dict[str, Tensor], int]:
        """The inputs and the number of samples; texts and bytes under a ``TextName``.

        Raises:
            InputError: something is missing, is no tensor, or the first dimensions differ.
        """
        chosen: dict[str, Tensor] = {}
        sizes = set()
        for name, value in self._choose(batch).items():
            if not (isinstance(value, Tensor) and value.dim()):
                name, value = self._packed(name, value)
            chosen[name] = value
            sizes.add(value.shape[0])
        if len(sizes) != 1:
            by_key = {self._keys.get(name, name): value.shape[0] for name, value in chosen.items()}
            raise InputError(f"the inputs differ in their first dimension (samples): {by_key}")
        return chosen, sizes.pop()

    def _packed(self, name: str, value: Any) -> tuple[str, Tensor]:
        """Texts as a tensor. Nothing else that is no tensor of samples can be seen by a teacher."""
        if are_texts(value):
            return pack_texts(name, value)
        key = self._keys.get(name, name)
        if isinstance(value, Tensor):
            raise InputError(f"input {key!r} has no dimensions; the first one must count the samples")
        raise InputError(f"input {key!r} is {_describe(value)}, not a tensor{_way_out(value)}")

    def _choose(self, batch: Any) -> dict[str, Any]:
        if self._callable is not None:
            chosen = self._callable(batch)
            if not isinstance(chosen, Mapping) or not chosen or not all(isinstance(k, str) for k in chosen):
                raise InputError(
                    f"the inputs callable returned {_describe(chosen)}; it must return a dict of tensors"
                )
            return dict(chosen)
        if self._keys:
            return {name: pick(batch, key) for name, key in self._keys.items()}
        if isinstance(batch, Tensor) or are_texts(batch):
            return {"0": batch}
        if isinstance(batch, np.ndarray):
            raise InputError(f"the batch is {_describe(batch)}, not a tensor{_way_out(batch)}")
        raise InputError(f"the batch is {_describe(batch)}: say with inputs= which part the teacher sees")


def pick(batch: Any, key: Key, argument: str = "inputs") -> Any:
    """An entry of a batch.

    Args:
        key: a key or attribute of it, or an index.
        argument: what named the key, for the message.

    Raises:
        InputError: there is none.
    """
    try:
        if isinstance(key, int):
            # A lone tensor is entry 0 of itself; its rows are samples, not entries.
            return (batch,)[key] if isinstance(batch, Tensor) else batch[key]
        if isinstance(batch, Mapping):
            return batch[key]
        return getattr(batch, key)
    except (KeyError, IndexError, AttributeError, TypeError):
        raise InputError(
            f"{argument}={key!r}: the batch has no such entry; it is {_describe(batch)}"
        ) from None


def _way_out(value: Any) -> str:
    """What helps one who has arrays where teachers need tensors."""
    if not isinstance(value, np.ndarray):
        return ""
    return (
        ": let the data loader's collate_fn pass it through torch.from_numpy, which copies nothing, or do so "
        "in a callable: inputs=lambda batch: {name: torch.from_numpy(array), ...}"
    )


def _describe(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} with keys {', '.join(repr(key) for key in batch)}"
    fields = getattr(batch, "_fields", None)
    if fields:
        return f"a {type(batch).__name__} with fields {', '.join(fields)}"
    if isinstance(batch, (tuple, list)):
        return f"a {type(batch).__name__} of {len(batch)}"
    return f"a {type(batch).__name__}"
