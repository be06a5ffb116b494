"""Train the teacher on all that mature users have rated, where its weights are missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.cold_users.data import MATURE, RATED, World
from examples.cold_users.models import Teacher
from examples.common.kept import fingerprint, kept_weights

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "build" / "teacher.safetensors"
STEPS, USERS, EACH, RATE, SEED = 1500, 128, 8, 5e-3, 1000
HELD = 20
"""Ratings of each user that only tell how good the teacher is."""


def main() -> None:
    made = [HERE / name for name in ("data.py", "models.py", "prepare.py")]
    figures = kept_weights(WEIGHTS, fingerprint({}, made), train)
    print(f"teacher: squared error {figures['error']:.4f} of ratings by users that it knows")


def train() -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """The teacher's weights, and its ``error`` on ratings that it has not seen."""
    print(f"teacher: no weights yet, training for {STEPS} steps", flush=True)
    torch.manual_seed(SEED)
    world, model = World.made(), Teacher()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        user = torch.randint(MATURE, (USERS,))
        asked = world.rated[user[:, None], torch.randint(RATED - HELD, (USERS, EACH))]
        loss = F.mse_loss(model(user, asked)["ratings"], world.ratings[user[:, None], asked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    user, held = torch.arange(MATURE), world.rated[:, -HELD:]
    with torch.no_grad():
        error = F.mse_loss(model(user, held)["ratings"], world.ratings[user[:, None], held]).item()
    return model.state_dict(), {"error": error}


if __name__ == "__main__":
    main()
