"""What all students have in common: tasks, samples, schedule, loss and judge."""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from examples.common.rows import Rows
from examples.control.models import GROUP_TASKS, GROUPS, NETWORKS, VALUE_UNIT
from examples.control.tasks import DISCOUNT, STATE, Systems, as_inputs, cost_ratio, draw_tasks, systems

__all__ = ["BATCH", "judge", "loss_of", "optimization", "options", "samples", "seen_tasks", "unseen_tasks"]

BATCH = 256
TD_WEIGHT = 0.01


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--network", choices=NETWORKS, default="hyper")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0, help="of first weights and samples")
    return parser


def seen_tasks() -> Tensor:
    """Parameters of the tasks that have teachers, float64 [60, 4]."""
    return draw_tasks(GROUPS * GROUP_TASKS, seed=1)


def unseen_tasks() -> Tensor:
    """Parameters of other tasks of the family, float64 [100, 4]."""
    return draw_tasks(100, seed=2)


def samples(steps: int, seed: int) -> Rows:
    """States in tasks: ``task`` int64, ``state`` float32 [4], ``parameters`` float32 [4] ``as_inputs``."""
    chance = torch.Generator().manual_seed(seed)
    count = steps * BATCH
    task = torch.randint(GROUPS * GROUP_TASKS, (count,), generator=chance)
    reach = 1.5 * torch.rand(count, 1, generator=chance)  # far away, and near the goal
    state = reach * torch.randn(count, STATE, generator=chance)
    return Rows({"task": task, "state": state, "parameters": as_inputs(seen_tasks())[task]})


def optimization(model: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, LRScheduler]:
    optimizer = torch.optim.Adam(model.parameters())
    return optimizer, OneCycleLR(optimizer, 5e-3, total_steps=steps)


def loss_of(model: nn.Module, batch: dict[str, Tensor], labels: dict[str, Tensor], tasks: Systems) -> Tensor:
    """Squared errors of force and value, and 0.01 of the error of what both say of the next state.

    The last one is the temporal difference: the value of a state is the cost of a step, plus the discounted
    value of the state to which that leads.
    """
    found = model(batch["state"], batch["parameters"])
    system = Systems(*(each[batch["task"]] for each in (tasks.A, tasks.B, tasks.effort)))
    after, costs = system.step(batch["state"].unsqueeze(1), labels["action"].unsqueeze(1))
    with torch.no_grad():
        later = model(after.squeeze(1), batch["parameters"])["value"]
    expected = costs.squeeze(1) / VALUE_UNIT + DISCOUNT * later
    return (
        F.mse_loss(found["action"], labels["action"])
        + F.mse_loss(found["value"], labels["value"])
        + TD_WEIGHT * F.mse_loss(found["value"], expected)
    )


def judge(model: nn.Module, parameters: Tensor) -> dict[str, float]:
    """Cost divided by the least cost in tasks [N, 4]: the ``mean`` and the ``worst`` of them."""
    inputs = as_inputs(parameters)

    def policy(state: Tensor) -> Tensor:
        each = inputs.unsqueeze(1).expand(-1, state.shape[1], -1)
        return model(state.flatten(0, 1), each.flatten(0, 1))["action"].view(*state.shape[:2], 1)

    ratio = cost_ratio(systems(parameters), policy)
    return {"mean": float(ratio.mean()), "worst": float(ratio.max())}
