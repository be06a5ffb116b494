"""Train each category's teacher on clicks of its mature items, where it is missing or was made otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from torch import Tensor

from examples.cold_items import data, recipe
from examples.cold_items.data import CATEGORIES, Market
from examples.cold_items.models import teacher
from examples.common.kept import fingerprint, kept_weights

HERE = Path(__file__).resolve().parent
IMPRESSIONS, BATCH, STEPS = 100_000, 512, 1000


def main() -> None:
    torch.set_num_threads(1)
    market = data.market()
    key = fingerprint({}, [HERE / f"{name}.py" for name in ("data", "models", "prepare")])
    for category in range(CATEGORIES):
        path = HERE / "build" / f"teacher-{category}.safetensors"
        auc = kept_weights(path, key, lambda category=category: train_teacher(market, category, STEPS))["auc"]
        print(f"teacher of category {category}: AUC {auc:.4f} on its mature items", flush=True)


def train_teacher(market: Market, category: int, steps: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A category's teacher: its weights, and its AUC on other impressions of the items that it knows."""
    torch.manual_seed(category)
    items = (market.category[: market.mature] == category).nonzero().flatten()
    given = market.impressions(items[torch.randint(len(items), (IMPRESSIONS,))], seed=1000 + category)
    model = teacher(market.mature)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        at = torch.randint(IMPRESSIONS, (BATCH,))
        loss = F.binary_cross_entropy_with_logits(model(given.item[at], given.context[at]), given.click[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    test = market.impressions(items.repeat_interleave(500), seed=2000 + category)
    with torch.no_grad():
        logits = model(test.item, test.context)
    return model.state_dict(), {"auc": recipe.auc(logits, test.click)}


if __name__ == "__main__":
    main()
