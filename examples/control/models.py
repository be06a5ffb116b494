"""Sixty teachers, networks of its own for each task, and students that are told a task's parameters.

All of them take states float32 [B, 4] and give ``action`` [B, 1], the force, and ``value`` [B], the
discounted cost that is to come, in units of 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.control.tasks import RANGES, STATE

__all__ = [
    "GROUPS",
    "GROUP_TASKS",
    "NETWORKS",
    "VALUE_UNIT",
    "Concatenated",
    "Hyper",
    "Teachers",
    "group_of",
    "teacher",
]

GROUPS, GROUP_TASKS = 6, 10
WIDTH = 16  # of the student's networks
LARGER = 152  # of one that has about as many parameters as the hypernetwork
VALUE_UNIT = 10.0
_TEACHER_WIDTH = 32


def _network(
    x: Tensor, layers: Sequence[tuple[Tensor, Tensor]], beside: Tensor, act: Callable[[Tensor], Tensor]
) -> Tensor:
    """Two hidden layers, and a linear map beside them: [..., N, n] -> [..., N, m]."""
    hidden = x
    for weight, bias in layers[:-1]:
        hidden = act(hidden @ weight + bias)
    weight, bias = layers[-1]
    return hidden @ weight + bias + x @ beside


def group_of(batch: dict[str, Tensor]) -> Tensor:
    """Which teacher group labels each sample: ten tasks a group, in their order."""
    return batch["task"] // GROUP_TASKS


class Teachers(nn.Module):
    """A policy and a value network for each of some tasks; no task knows of another.

    Args:
        count: of tasks.
        first: the number of the first one.
    """

    def __init__(self, count: int, first: int = 0) -> None:
        super().__init__()
        self._first = first
        sizes = [STATE, _TEACHER_WIDTH, _TEACHER_WIDTH, 1]
        self.weights = nn.ParameterList(
            torch.randn(count, 2, n, m) / n**0.5 for n, m in zip(sizes, sizes[1:], strict=False)
        )
        nn.init.zeros_(self.weights[-1])  # they begin by doing nothing
        self.biases = nn.ParameterList(torch.zeros(count, 2, 1, m) for m in sizes[1:])
        self.beside = nn.Parameter(torch.zeros(count, 2, STATE, 1))

    def forward(self, state: Tensor, task: Tensor) -> dict[str, Tensor]:
        """Labels of states [B, 4], each by the networks of its task, int64 [B].

        Raises:
            ValueError: a task is none of these.
        """
        own, count = task - self._first, len(self.weights[0])
        if not ((own >= 0) & (own < count)).all():
            wrong = int(task[(own < 0) | (own >= count)][0])
            raise ValueError(
                f"task {wrong} has no teacher here: these are of tasks {self._first} to "
                f"{self._first + count - 1}"
            )
        x = self._through(state.view(-1, 1, 1, STATE), lambda each: each[own])
        return {"action": x[:, 0, 0], "value": x[:, 1, 0, 0]}

    def policies(self, states: Tensor) -> Tensor:
        """Of each task its forces in its states: [tasks, B, 4] -> [tasks, B, 1]."""
        return self._through(states, lambda each: each[:, 0])

    def values(self, states: Tensor) -> Tensor:
        """Of each task the values of its states: [tasks, B, 4] -> [tasks, B]."""
        return self._through(states, lambda each: each[:, 1]).squeeze(-1)

    def _through(self, x: Tensor, chosen: Callable[[Tensor], Tensor]) -> Tensor:
        layers = [(chosen(w), chosen(b)) for w, b in zip(self.weights, self.biases, strict=True)]
        return _network(x, layers, chosen(self.beside), torch.tanh)


def teacher(group: int = 0) -> nn.Module:
    """The teachers of one group's tasks; their weights come from the job's ``weights:``."""
    if not 0 <= group < GROUPS:
        raise ValueError(f"group {group}: there are groups 0 to {GROUPS - 1}, of {GROUP_TASKS} tasks each")
    return Teachers(GROUP_TASKS, group * GROUP_TASKS)


class Hyper(nn.Module):
    """Makes the weights of a small policy and of a small value network out of a task's parameters."""

    def __init__(self, width: int = WIDTH, hidden: int = 64) -> None:
        super().__init__()
        self._sizes = [(STATE + 1, width), (width + 1, width), (width + 1, 1), (STATE, 1)]
        self._made = [2 * n * m for n, m in self._sizes]
        self.trunk = nn.Sequential(
            nn.Linear(len(RANGES), hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.head = nn.Linear(hidden, sum(self._made))
        # At first hardly anything depends on the task, and what is made are weights as networks begin with.
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            bounds = [torch.full((k,), n**-0.5) for k, (n, _) in zip(self._made, self._sizes, strict=True)]
            self.head.bias.uniform_(-1, 1).mul_(torch.cat(bounds))

    def forward(self, state: Tensor, parameters: Tensor) -> dict[str, Tensor]:
        """Of states [B, 4] in tasks [B, 4], the latter ``as_inputs``."""
        made = self.head(self.trunk(parameters)).split(self._made, dim=-1)
        *layers, beside = (part.view(-1, 2, n, m) for part, (n, m) in zip(made, self._sizes, strict=True))
        with_biases = [(layer[:, :, :-1], layer[:, :, -1:]) for layer in layers]
        x = _network(state.view(-1, 1, 1, STATE), with_biases, beside, F.relu)
        return {"action": x[:, 0, 0], "value": x[:, 1, 0, 0]}


class Concatenated(nn.Module):
    """The same networks, except that there is one of each, which gets the parameters beside the state."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        sizes = [STATE + len(RANGES), width, width, 1]
        self.layers = nn.ModuleList(
            nn.ModuleList(nn.Linear(n, m) for n, m in zip(sizes, sizes[1:], strict=False)) for _ in range(2)
        )
        self.beside = nn.ModuleList(nn.Linear(sizes[0], 1, bias=False) for _ in range(2))

    def forward(self, state: Tensor, parameters: Tensor) -> dict[str, Tensor]:
        x = torch.cat([state, parameters], dim=-1)
        action, value = (
            _network(x, [(each.weight.mT, each.bias) for each in layers], beside.weight.mT, F.relu)
            for layers, beside in zip(self.layers, self.beside, strict=True)
        )
        return {"action": action, "value": value.squeeze(-1)}


NETWORKS = {"hyper": Hyper, "concatenated": Concatenated, "larger": lambda: Concatenated(LARGER)}
"""The students: the hypernetwork, one of the same width with concatenated parameters, one as large."""
