"""Between tasks and tensors: the inputs of a forward pass, and answers to its tasks made of its labels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from edldist.errors import WireError
from edldist.teacher.tasks import Answer, HeldTask
from edldist.wire.messages import LeaseRows, Result
from edldist.wire.tensors import DTYPES, pack, unpack

__all__ = ["answers_to", "inputs_of", "joined", "parts_of"]


def inputs_of(tasks: Sequence[HeldTask]) -> dict[str, Tensor]:
    """The inputs of a forward pass, samples first.

    Tasks that lie back to back in the frames they came in are that very memory.

    Raises:
        WireError: a task's tensors are not what its header says.
    """
    return joined(parts_of(tasks))


def parts_of(tasks: Sequence[HeldTask]) -> list[dict[str, Tensor]]:
    """The same in parts, each in the memory that it came in.

    Raises:
        WireError: a task's tensors are not what its header says.
    """
    return [_rows(run) for run in _runs(tasks)]


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Parts of the inputs of a pass as one; a single one is left where it lies."""
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _runs(tasks: Sequence[HeldTask]) -> Iterator[list[HeldTask]]:
    """Tasks in a row that lie back to back."""
    run: list[HeldTask] = []
    for task in tasks:
        last = run[-1] if run else None
        if last is not None and not (task.inputs is last.inputs and task.start == last.start + last.rows):
            yield run
            run = []
        run.append(task)
    if run:
        yield run


def _rows(run: Sequence[HeldTask]) -> dict[str, Tensor]:
    inputs, start = run[0].inputs, run[0].start
    stop = run[-1].start + run[-1].rows
    tensors = unpack(inputs.tensors, inputs.frames, texts=True)
    wrong = [n for n, tensor in tensors.items() if tensor.dim() == 0 or tensor.shape[0] != inputs.rows]
    if wrong or not tensors:
        raise WireError(f"tasks of {inputs.rows} rows came with inputs {inputs.tensors}")
    if stop - start == inputs.rows:
        return tensors
    return {name: tensor[start:stop] for name, tensor in tensors.items()}


def answers_to(
    tasks: Sequence[HeldTask],
    labels: Mapping[str, Tensor],
    version: str,
    compute_s: float,
    max_frame_bytes: Callable[[str], int | None],
) -> list[Answer]:
    """Cut the labels of a forward pass into answers to its tasks.

    Args:
        labels: host tensors, the rows of all tasks in order along the first dimension.
        max_frame_bytes: the largest frame that a student takes in, by its name.
    """
    answers: list[Answer] = []
    first = 0
    for _, run in itertools.groupby(tasks, key=lambda task: task.student):
        together = list(run)
        rows = sum(task.labels for task in together)
        answers += _answers(together, labels, first, version, compute_s, max_frame_bytes)
        first += rows
    return answers


def _answers(
    tasks: list[HeldTask],
    labels: Mapping[str, Tensor],
    first: int,
    version: str,
    compute_s: float,
    max_frame_bytes: Callable[[str], int | None],
) -> list[Answer]:
    """One answer to all tasks of a student, or one to each where they do not fit into a frame."""
    count = sum(task.labels for task in tasks)
    own = {name: tensor[first : first + count] for name, tensor in labels.items()}
    try:
        specs, frames = pack(own, max_frame_bytes(tasks[0].student))
    except WireError as exc:
        if len(tasks) == 1:
            final = not all(tensor.dtype in DTYPES.values() for tensor in own.values())
            return [Answer(tasks, None, error=f"the labels cannot be sent: {exc}", final=final)]
        answers = []
        for task in tasks:
            answers += _answers([task], labels, first, version, compute_s, max_frame_bytes)
            first += task.labels
        return answers
    result = Result(
        rows=[LeaseRows(lease=task.lease, count=task.labels) for task in tasks],
        version=version,
        compute_s=compute_s,
        tensors=specs,
        codec=tasks[0].codec,
    )
    return [Answer(tasks, result, frames)]
