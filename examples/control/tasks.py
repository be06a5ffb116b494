"""The tasks: two carts joined by a spring, of which a motor pushes one. Generated, with a known optimum.

The state is the places and speeds of both carts, ``(place 1, place 2, speed 1, speed 2)``; the motor's force
on the first cart is the action. A step takes 0.2 s, in which the force stays the same, and costs
``place 1^2 + place 2^2 + 0.1 (speed 1^2 + speed 2^2) + effort force^2``; costs are discounted by 0.95 a step.
Four numbers make a task: both masses, the stiffness of the spring, and the effort, what force costs.

For such a linear system with quadratic costs the least cost from a state x is ``x' P x``, where P solves a
Riccati equation. That is used to judge policies and for nothing else: nobody learns from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DISCOUNT", "RANGES", "STATE", "Systems", "as_inputs", "cost_ratio", "draw_tasks", "systems"]

RANGES = {"mass_1": (0.5, 2.0), "mass_2": (0.5, 2.0), "stiffness": (0.5, 8.0), "effort": (0.1, 1.0)}
STATE, DISCOUNT = 4, 0.95
_STEP_S, _FRICTION = 0.2, 0.1
_STATE_COSTS = (1.0, 1.0, 0.1, 0.1)


@dataclass(frozen=True)
class Systems:
    """The dynamics and costs of some tasks: ``next = A state + B force``.

    Attributes:
        A: float64 [N, 4, 4].
        B: float64 [N, 4, 1].
        effort: float64 [N].
    """

    A: Tensor
    B: Tensor
    effort: Tensor

    def step(self, state: Tensor, force: Tensor) -> tuple[Tensor, Tensor]:
        """The next states and the costs of a step: [N, B, 4], force [N, B, 1] -> [N, B, 4], [N, B]."""
        A, B = self.A.to(state.dtype), self.B.to(state.dtype)
        costs = (state.square() * state.new_tensor(_STATE_COSTS)).sum(-1)
        costs = costs + self.effort.to(state.dtype).unsqueeze(-1) * force.square().squeeze(-1)
        return state @ A.mT + force @ B.mT, costs

    def least(self, state: Tensor) -> Tensor:
        """The least discounted cost from states [N, B, 4]: [N, B], by the Riccati equation."""
        P = self._riccati().to(state.dtype)
        return (state @ P * state).sum(-1)

    def _riccati(self) -> Tensor:
        A, B = self.A * DISCOUNT**0.5, self.B * DISCOUNT**0.5
        Q = torch.diag(torch.tensor(_STATE_COSTS, dtype=A.dtype)).expand_as(A)
        P = Q
        for _ in range(500):
            gain = (B.mT @ P @ A) / (self.effort.view(-1, 1, 1) + B.mT @ P @ B)
            P = Q + A.mT @ P @ (A - B @ gain)
        return P


def draw_tasks(count: int, seed: int) -> Tensor:
    """Parameters float64 [count, 4]: each evenly drawn from the logarithm of its range."""
    chance = torch.Generator().manual_seed(seed)
    low, high = _bounds().log()
    return (low + (high - low) * torch.rand(count, len(RANGES), generator=chance, dtype=torch.float64)).exp()


def systems(parameters: Tensor) -> Systems:
    """What tasks with these parameters [N, 4] are.

    Raises:
        ValueError: one is out of its range.
    """
    check(parameters)
    mass_1, mass_2, stiffness, effort = parameters.double().unbind(-1)
    # d/dt (state, force) = rate (state, force); the force stays as it is for a step.
    rate = parameters.new_zeros(len(parameters), STATE + 1, STATE + 1, dtype=torch.float64)
    rate[:, 0, 2] = rate[:, 1, 3] = 1
    for row, mass, own, other in ((2, mass_1, 0, 1), (3, mass_2, 1, 0)):
        rate[:, row, own], rate[:, row, other] = -stiffness / mass, stiffness / mass
        rate[:, row, row] = -_FRICTION / mass
    rate[:, 2, 4] = 1 / mass_1
    moved = torch.linalg.matrix_exp(rate * _STEP_S)
    return Systems(moved[:, :STATE, :STATE], moved[:, :STATE, STATE:], effort)


def check(parameters: Tensor) -> None:
    """Refuse tasks that nobody has learnt anything about.

    Raises:
        ValueError: a parameter is out of its range, or no number, or there are not four of a task.
    """
    if parameters.ndim != 2 or parameters.shape[1] != len(RANGES):
        raise ValueError(
            f"tasks of shape {list(parameters.shape)}: each has {len(RANGES)} parameters, {', '.join(RANGES)}"
        )
    for (name, (low, high)), column in zip(RANGES.items(), parameters.unbind(-1), strict=True):
        inside = (column >= low) & (column <= high)
        if not inside.all():
            task = int(inside.int().argmin())
            raise ValueError(f"task {task} has {name}={column[task]:g}: it must be from {low:g} to {high:g}")


def as_inputs(parameters: Tensor) -> Tensor:
    """Parameters [N, 4] as a network takes them: float32, their logarithms from -1 to 1.

    Raises:
        ValueError: one is out of its range.
    """
    check(parameters)
    low, high = _bounds().log()
    return ((parameters.double().log() - low) / (high - low) * 2 - 1).float()


@torch.no_grad()
def cost_ratio(tasks: Systems, policy: Callable[[Tensor], Tensor], steps: int = 200) -> Tensor:
    """What a policy costs, divided by the least possible cost, from 64 states: float64 [N].

    Args:
        policy: states float32 [N, B, 4] -> forces [N, B, 1].
        steps: after which nothing is counted any more.
    """
    chance = torch.Generator().manual_seed(12_345)
    state = torch.randn(len(tasks.A), 64, STATE, generator=chance, dtype=torch.float64)
    least, cost = tasks.least(state).sum(-1), state.new_zeros(len(tasks.A))
    for step in range(steps):
        state, costs = tasks.step(state, policy(state.float()).double())
        cost += DISCOUNT**step * costs.sum(-1)
    return cost / least


def _bounds() -> Tensor:
    return torch.tensor(list(RANGES.values()), dtype=torch.float64).T
