"""Train the teacher on all of the text but its end, where its folder is missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from examples.huggingface.data import splits
from examples.huggingface.models import teacher

FOLDER = Path(__file__).resolve().parent / "build" / "teacher"
STEPS = 300


def main() -> None:
    if FOLDER.exists():
        return
    torch.manual_seed(0)
    train, _, test = splits()
    model = teacher()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _ in range(STEPS):
        tokens = train.windows[torch.randint(len(train), (32,))]
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        loss = model(input_ids=test.windows, labels=test.windows).loss.item()
    partial = FOLDER.with_name("teacher.partial")  # whole or not at all
    model.save_pretrained(partial)
    partial.rename(FOLDER)
    print(f"teacher: test loss {loss:.3f} nats a byte")


if __name__ == "__main__":
    main()
