"""Train a policy and a value network for each of sixty tasks, where they are missing or were made otherwise.

A policy learns by gradient descent on what it costs: the costs of some steps are differentiated through the
system's dynamics. Then its value network learns by regression what that policy costs from a state on.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from examples.common.kept import fingerprint, kept_weights
from examples.control.models import GROUP_TASKS, GROUPS, VALUE_UNIT, Teachers
from examples.control.recipe import seen_tasks
from examples.control.tasks import DISCOUNT, STATE, Systems, cost_ratio, systems

HERE = Path(__file__).resolve().parent
POLICY_STEPS, VALUE_STEPS = 400, 1500
HORIZON_STEPS = 40
VALUE_STATES, VALUE_BATCH = 1024, 64  # of each task


def main() -> None:
    torch.set_num_threads(1)
    key = fingerprint({}, [HERE / f"{name}.py" for name in ("models", "prepare", "recipe", "tasks")])
    train = functools.cache(lambda: trained(seen_tasks(), POLICY_STEPS, VALUE_STEPS))
    for group in range(GROUPS):
        own = slice(group * GROUP_TASKS, (group + 1) * GROUP_TASKS)
        kept_weights(
            HERE / "build" / f"teachers-{group}.safetensors",
            key,
            lambda own=own: ({name: tensor[own] for name, tensor in train().items()}, {}),
        )


def trained(parameters: Tensor, policy_steps: int, value_steps: int) -> dict[str, Tensor]:
    """The weights of a teacher for each of the tasks [N, 4], in their order."""
    print(f"teachers: no weights yet, training {len(parameters)} policies and values", flush=True)
    begun = time.monotonic()
    torch.manual_seed(1000)
    tasks = systems(parameters)
    fleet = Teachers(len(tasks.A))
    optimizer = torch.optim.Adam(fleet.parameters())
    schedule = OneCycleLR(optimizer, 5e-2, total_steps=policy_steps)
    for _ in range(policy_steps):
        # A task's cost moves the weights of its own networks only.
        _take(optimizer, returns(tasks, fleet, spread(len(tasks.A)), HORIZON_STEPS).mean(-1).sum())
        schedule.step()
    states = 1.5 * torch.rand(len(tasks.A), VALUE_STATES, 1) * torch.randn(len(tasks.A), VALUE_STATES, STATE)
    with torch.no_grad():
        costs = returns(tasks, fleet, states, 3 * HORIZON_STEPS) / VALUE_UNIT
    optimizer = torch.optim.Adam(fleet.parameters())
    schedule = OneCycleLR(optimizer, 1e-2, total_steps=value_steps)
    for _ in range(value_steps):
        at = torch.randint(VALUE_STATES, (VALUE_BATCH,))
        _take(optimizer, (fleet.values(states[:, at]) - costs[:, at]).square().mean(-1).sum())
        schedule.step()
    ratio = cost_ratio(tasks, fleet.policies)
    spent_s = time.monotonic() - begun
    print(f"teachers: cost / least cost {ratio.mean():.4f}, {ratio.max():.4f} at most, {spent_s:.0f} s")
    return fleet.state_dict()


def spread(tasks: int) -> Tensor:
    """States [tasks, 8, 4], to begin with: for each task four at right angles, and their opposites.

    Each is normally distributed; together they say more of a policy than eight by chance.
    """
    directions = torch.linalg.qr(torch.randn(tasks, STATE, STATE))[0]
    states = directions * torch.randn(tasks, STATE, STATE).norm(dim=-1, keepdim=True)
    return torch.cat([states, -states], dim=1)


def returns(tasks: Systems, fleet: Teachers, state: Tensor, steps: int) -> Tensor:
    """The discounted costs of the policies from states [tasks, B, 4] on: [tasks, B]."""
    total = state.new_zeros(state.shape[:2])
    for step in range(steps):
        state, costs = tasks.step(state, fleet.policies(state))
        total = total + DISCOUNT**step * costs
    return total


def _take(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    main()
