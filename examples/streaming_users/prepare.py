"""Train the teacher of each night, where its weights are missing: on the log of the days that were over by
then."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from examples.common.kept import fingerprint, kept_weights
from examples.streaming_users.data import users
from examples.streaming_users.models import Teacher
from examples.streaming_users.nights import BUILD, LAST_NIGHT, weights_of
from examples.streaming_users.recipe import auc, judged

HERE = Path(__file__).resolve().parent
LOG, LOG_SEED, BATCH, RATE = 12_000, 1_000_009, 64, 2e-3
"""Users of each day in the log that teachers learn from; no student meets them."""
FIRST_STEPS, NEXT_STEPS = 1500, 500


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=Path, default=BUILD, help="where the teachers lie")
    args = parser.parse_args(given)
    sources = [HERE / name for name in ("data.py", "models.py", "prepare.py")]
    for night in range(LAST_NIGHT + 1):
        key = fingerprint({"night": night}, sources)
        figures = kept_weights(
            weights_of(night, args.build), key, lambda night=night: train(night, args.build)
        )
        print(f"teacher of night {night}: AUC {figures['auc']:.2f} of the day after", flush=True)


def train(night: int, build: Path) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """The weights of a night, which begin with those of the night before; and their ``auc`` on the next day's
    users."""
    steps = NEXT_STEPS if night else FIRST_STEPS
    print(f"teacher of night {night}: no weights yet, training for {steps} steps", flush=True)
    torch.manual_seed(1000 + night)
    model = Teacher()
    if night:
        model.load_state_dict(load_file(weights_of(night - 1, build)))
    model.night.fill_(night)
    log = users(LOG_SEED, range(1_000_000 * night, 1_000_000 * night + LOG), night)
    optimizer = torch.optim.Adam(model.parameters())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = (
            RATE * min(1.0, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps)) / 2
        )
        some = torch.randint(LOG, (BATCH,))
        logits = model(log["items"][some], log["clicks"][some], log["query"][some])["logits"]
        loss = F.binary_cross_entropy_with_logits(logits, log["query_clicks"][some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new = judged(night + 1)
    with torch.no_grad():
        logits = model(new["items"], new["clicks"], new["query"])["logits"]
    return model.state_dict(), {"auc": auc(logits, new["query_clicks"])}


if __name__ == "__main__":
    main()
