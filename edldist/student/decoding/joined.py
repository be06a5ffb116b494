"""Labels of several teachers, each of a part of a batch, as one set of labels of all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from edldist.errors import LabelError
from edldist.labels.packing import Codec

__all__ = ["joined"]


def joined(
    labels: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, Tensor],
    codec: Callable[[str], Codec],
) -> tuple[dict[str, Any], Tensor]:
    """One set of labels, teacher behind teacher, and where its rows belong.

    Args:
        labels: of each teacher, by output: tensors [N, ...], or data classes of such.
        places: of teachers, one at least, int64: for each position of the batch its row there, or -1. A
            position has a row of one of them at most. Labels without rows need none.
        codec: of a teacher, for messages.

    Returns:
        By output, of all N together, and the places of these.

    Raises:
        LabelError: two teachers have other outputs, or labels of another kind, shape or dtype.
    """
    (first, outputs), *others = labels.items()
    for teacher, its in others:
        if its.keys() != outputs.keys():
            raise LabelError(
                f"teacher {first!r} has outputs {sorted(outputs)} and teacher {teacher!r} has {sorted(its)}: "
                "those among whom samples are routed need the same (--outputs chooses)"
            )
    whole: dict[str, Any] = {}
    for output, value in outputs.items():
        known = _outline(value)
        for teacher, its in others:
            if (outline := _outline(its[output])) != known:
                raise LabelError(
                    f"output {output!r} of teacher {first!r} (codec {codec(first).spec}) is {known}, and "
                    f"that of teacher {teacher!r} (codec {codec(teacher).spec}) is {outline}: those among "
                    "whom samples are routed need the same shapes and one codec"
                )
        whole[output] = _behind([value, *(its[output] for _, its in others)])
    rows, together = 0, torch.full_like(next(iter(places.values())), -1)
    for teacher, its in labels.items():
        if (own := places.get(teacher)) is not None:
            together = torch.where(own >= 0, own + rows, together)
        rows += _rows(its)
    return whole, together


def _rows(labels: Mapping[str, Any]) -> int:
    value = next(iter(labels.values()))
    return len(value if isinstance(value, Tensor) else next(iter(_tensors(value).values())))


def _tensors(value: Any) -> dict[str, Tensor]:
    of = {field.name: getattr(value, field.name) for field in fields(value)}
    return {name: tensor for name, tensor in of.items() if isinstance(tensor, Tensor)}


def _outline(value: Any) -> str:
    """All that two labels need to have in common to be rows of one set."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{['N', *value.shape[1:]]}".replace("'", "")
    parts = []
    for field in fields(value):
        its = getattr(value, field.name)
        parts.append(f"{field.name}={_outline(its) if isinstance(its, Tensor) else repr(its)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def _behind(values: list[Any]) -> Any:
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    return replace(
        values[0], **{name: torch.cat([getattr(v, name) for v in values]) for name in _tensors(values[0])}
    )
