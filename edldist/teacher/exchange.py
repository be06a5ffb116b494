"""Between tasks and tensors: the inputs of a forward pass, and its labels as answers to its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edldist.errors import WireError
from edldist.teacher.batcher import HeldTask
from edldist.teacher.service import Answer
from edldist.wire.messages import Result
from edldist.wire.tensors import pack, unpack

__all__ = ["gather", "settle"]


def gather(tasks: Sequence[HeldTask]) -> dict[str, Tensor]:
    """The inputs of a forward pass, samples first; a lone task's are its frames' own memory.

    Raises:
        WireError: a task's tensors are not what its header says.
    """
    parts = [unpack(task.tensors, task.frames) for task in tasks]
    for task, part in zip(tasks, parts, strict=True):
        wrong = [
            name for name, tensor in part.items() if tensor.dim() == 0 or tensor.shape[0] != task.samples
        ]
        if wrong or not part:
            raise WireError(f"a task of {task.samples} samples came with inputs {task.tensors}")
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def settle(
    tasks: Sequence[HeldTask],
    labels: Mapping[str, Tensor],
    codec: str,
    compute_s: float,
    max_frame_bytes: Callable[[str], int | None],
) -> list[Answer]:
    """Cut the labels of a forward pass into answers to its tasks.

    Args:
        labels: host tensors, the samples of all tasks in order along the first dimension.
        max_frame_bytes: the largest frame that a student takes in, by its name.
    """
    answers, first = [], 0
    for task in tasks:
        own = {name: tensor[first : first + task.samples] for name, tensor in labels.items()}
        first += task.samples
        try:
            specs, frames = pack(own, max_frame_bytes(task.student))
        except WireError as exc:
            answers.append(Answer(task, None, error=f"the labels cannot be sent: {exc}"))
            continue
        result = Result(lease=task.lease, codec=codec, compute_s=compute_s, tensors=specs)
        answers.append(Answer(task, result, frames))
    return answers
