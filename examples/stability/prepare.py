"""Train the teacher on clicks of its own, where its weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from examples.stability.data import events
from examples.stability.models import teacher
from examples.stability.recipe import BATCH, INPUTS, auc

WEIGHTS = Path(__file__).resolve().parent / "build" / "teacher.safetensors"
STEPS, SEED = 1500, 1000


def main() -> None:
    if WEIGHTS.exists():
        return
    print(f"teacher: no weights yet, training for {STEPS} steps", flush=True)
    model = trained(STEPS)
    WEIGHTS.parent.mkdir(exist_ok=True)
    partial = WEIGHTS.with_suffix(".partial")
    save_file(model.state_dict(), partial)
    partial.rename(WEIGHTS)
    print(f"teacher: AUC {auc(model, 'feature'):.4f}")


def trained(steps: int) -> torch.nn.Module:
    """A teacher after so many steps on clicks; half of its events are without ``watched``."""
    torch.manual_seed(SEED)
    model = teacher()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    columns = events(SEED, steps * BATCH)
    columns["watched"][::2] = 0
    for at in range(0, steps * BATCH, BATCH):
        batch = {name: column[at : at + BATCH] for name, column in columns.items()}
        loss = cross_entropy(model(**{name: batch[name] for name in INPUTS}), batch["click"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


if __name__ == "__main__":
    main()
