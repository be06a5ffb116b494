"""Train the late ranker on the log of visits, where it has not been."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor

from examples.common.kept import fingerprint, kept_weights
from examples.early_ranker.data import Log, World
from examples.early_ranker.models import LateRanker, late_ranker

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "build" / "late.safetensors"
VISITS, TEST_VISITS, EPOCHS, BATCH = 200_000, 20_000, 4, 512
LOG_SEED, SEED = 1000, 1000


def train(model: LateRanker, log: Log, epochs: int, seed: int) -> None:
    """Learn who clicks what, from what was shown."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    steps = epochs * -(-len(log.item) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    chance = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(log.item), generator=chance).split(BATCH):
            odds = model(log.user[part], log.item[part, None])[:, 0]
            loss = F.binary_cross_entropy_with_logits(odds, log.clicked[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def auc(model: LateRanker, log: Log) -> float:
    """Of clicks that it has not seen."""
    odds: Tensor = model(log.user, log.item[:, None])[:, 0]
    return float(roc_auc_score(log.clicked, odds))


def main() -> None:
    key = fingerprint({}, [HERE / name for name in ("data.py", "models.py", "prepare.py")])
    found = kept_weights(WEIGHTS, key, trained)
    print(f"late ranker: AUC {found['auc']:.3f} of visits after those that it has learnt from")


def trained() -> tuple[dict[str, Tensor], dict[str, float]]:
    print(f"late ranker: no weights yet, training on {VISITS:,} visits", flush=True)
    torch.manual_seed(SEED)
    world, model = World(), late_ranker()
    train(model, world.log(VISITS, LOG_SEED), EPOCHS, SEED)
    return model.state_dict(), {"auc": auc(model, world.log(TEST_VISITS, LOG_SEED + 1))}


if __name__ == "__main__":
    main()
