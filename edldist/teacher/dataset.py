"""Inputs by reference: tasks that name samples, and the data set that the worker reads them from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from edldist.errors import ConfigError, ContractError, InputError, ModelError
from edldist.factories.factory import make, own_traceback
from edldist.wire.texts import are_texts, pack_texts

__all__ = ["INDEX", "SEED", "IndexedDataset", "parse_entries"]

INDEX = "index"
SEED = "seed"

Entry = str | int


def parse_entries(text: str) -> tuple[Entry, ...]:
    """``"image"``, ``"0"`` or ``"image,mask"``: names, or positions, of a sample's entries.

    Raises:
        ConfigError: an empty or repeated one.
    """
    entries: tuple[Entry, ...] = tuple(
        int(part) if part.isdecimal() else part for part in (raw.strip() for raw in text.split(","))
    )
    if "" in entries or len(set(entries)) != len(entries):
        raise ConfigError(
            f"dataset_inputs {text!r}: use different keys or positions, as in image,mask or 0,2"
        )
    return entries


class IndexedDataset:
    """A map-style data set as a source of a model's inputs.

    A sample is a tensor, a tuple or a mapping. What the model sees of it are ``entries``; without
    them the first entry of a tuple, and all entries of a mapping. Names become keyword arguments,
    positions positional ones in the order given, as with a loader's ``inputs=``. Entries are
    stacked by torch's ``default_collate``, as a ``DataLoader`` does; texts and bytes become lists.

    Read by the reader's threads: by one at a time unless the worker has several.

    Args:
        path: ``package.module:factory``; the factory takes nothing.
        entries: what the model sees of a sample, or None.

    Raises:
        ModelError: any step failed, or what came out is no map-style data set.
        ConfigError: ``path`` is malformed.
    """

    def __init__(self, path: str, entries: Sequence[Entry] | None = None) -> None:
        self.path = path
        self._entries = tuple(entries) if entries is not None else None
        self._dataset = make("dataset", path)
        missing = [name for name in ("__len__", "__getitem__") if not hasattr(type(self._dataset), name)]
        if missing:
            raise ModelError(
                f"dataset {path}: the factory returned a {type(self._dataset).__name__} without "
                f"{' and '.join(missing)}; it must return a map-style data set"
            )
        try:
            self._length = len(self._dataset)
        except Exception as exc:
            raise ModelError(f"dataset {path}: len() raised:\n{own_traceback(exc)}") from exc
        self._seeded: Callable[[int, int], Any] | None = getattr(self._dataset, "sample", None)

    def check(self, references: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The indices and seeds that a task brought along.

        Args:
            references: ``index`` and perhaps ``seed``, both int64 [samples].

        Raises:
            ContractError: something else.
            InputError: an index that the data set does not have.
        """
        if INDEX not in references or not references.keys() <= {INDEX, SEED}:
            raise ContractError(
                f"this teacher reads its inputs from dataset {self.path}: a task must bring {INDEX!r}, and "
                f"may bring {SEED!r}, not {', '.join(map(repr, references))}. Let the loader's inputs= pick "
                "these, or leave the teacher's dataset out"
            )
        for name, tensor in references.items():
            if tensor.dtype is not torch.int64 or tensor.dim() != 1:
                raise ContractError(
                    f"{name!r} is {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}; "
                    "it must be int64 with one number for each sample"
                )
        index, seed = references[INDEX], references.get(SEED)
        if not len(index):
            raise InputError("the task names no samples")
        outside = ((index < 0) | (index >= self._length)).nonzero().flatten()
        if len(outside):
            at = int(outside[0])
            raise InputError(
                f"sample {at} of the task has index {int(index[at])}; dataset {self.path} has {self._length} "
                "samples here. Do student and teacher read the same data?"
            )
        if seed is not None and not callable(self._seeded):
            raise ContractError(
                f"the student sends {SEED!r}, but dataset {self.path} has no method sample(index, seed): "
                "write one, or send no seeds"
            )
        return index, seed

    def read(self, index: Tensor, seed: Tensor | None, first: int = 0) -> dict[str, Tensor]:
        """Inputs of some samples.

        Args:
            index: int64 [samples], within the data set.
            seed: int64 [samples], or None.
            first: position of the first of them in its task, for messages.

        Returns:
            Tensors by the names that the model takes them under, samples first; texts under a ``TextName``.

        Raises:
            ContractError: its samples are not what ``entries`` says.
            InputError: the data set raised, or made something that cannot be stacked.
        """
        indices = index.tolist()
        samples = self._fetch(indices, None if seed is None else seed.tolist(), first)
        chosen = [self._choose(sample, indices[at], first + at) for at, sample in enumerate(samples)]
        return dict(
            self._stack(name, [each[name] for each in chosen if name in each], first, len(indices))
            for name in chosen[0]
        )

    def _stack(self, name: str, values: list[Any], first: int, samples: int) -> tuple[str, Tensor]:
        try:
            if len(values) != samples:
                raise ValueError("some samples lack it")
            if are_texts(values):
                return pack_texts(name, values)
            stacked = default_collate(values)
        except Exception as exc:
            raise InputError(
                f"entry {name!r} of samples {first}..{first + samples - 1} of the task cannot be stacked: "
                f"{type(exc).__name__}: {exc}. Samples of dataset {self.path} must have one shape and type"
            ) from exc
        if not isinstance(stacked, Tensor):
            raise ContractError(
                f"entry {name!r} of the samples of dataset {self.path} is a {type(values[0]).__name__}, not "
                "a tensor, text or bytes. Say with dataset_inputs which entries the model takes"
            )
        return name, stacked

    def _fetch(self, indices: list[int], seeds: list[int] | None, first: int) -> Sequence[Any]:
        together = getattr(self._dataset, "__getitems__", None) if seeds is None else None
        samples: Any = []
        try:
            if together is not None:
                samples = together(indices)
            elif seeds is None:
                for index in indices:
                    samples.append(self._dataset[index])
            else:
                assert self._seeded is not None
                for index, seed in zip(indices, seeds, strict=True):
                    samples.append(self._seeded(index, seed))
        except Exception as exc:
            at = len(samples)
            where = (
                f"samples {first}..{first + len(indices) - 1} of the task (indices {indices[0]}, ...)"
                if together is not None
                else f"sample {first + at} of the task (index {indices[at]})"
            )
            raise InputError(f"dataset {self.path} raised on {where}:\n{own_traceback(exc)}") from exc
        if not isinstance(samples, Sequence) or len(samples) != len(indices):
            raise InputError(
                f"__getitems__ of dataset {self.path} returned a {type(samples).__name__} for {len(indices)} "
                "indices; it must return a list with one sample for each"
            )
        return samples

    def _choose(self, sample: Any, index: int, at: int) -> dict[str, Any]:
        """The entries of one sample by the names under which the model takes them."""
        entries = self._entries
        if isinstance(sample, Mapping) and entries is None:
            return {str(name): value for name, value in sample.items()}
        if not isinstance(sample, Mapping | tuple | list):
            sample = (sample,)
        chosen: dict[str, Any] = {}
        positions = 0
        for entry in entries if entries is not None else (0,):
            try:
                value = (
                    getattr(sample, entry)
                    if isinstance(entry, str) and not isinstance(sample, Mapping)
                    else sample[entry]
                )
            except (KeyError, IndexError, AttributeError):
                raise ContractError(
                    f"sample {at} of the task (index {index}) of dataset {self.path} has no entry {entry!r} "
                    f"(dataset_inputs); it is {_describe(sample)}"
                ) from None
            if isinstance(entry, int):
                chosen[str(positions)] = value
                positions += 1
            else:
                chosen[entry] = value
        return chosen


def _describe(sample: Any) -> str:
    if isinstance(sample, Mapping):
        return f"a {type(sample).__name__} with keys {', '.join(map(repr, sample))}"
    return f"a {type(sample).__name__} of {len(sample)}"
