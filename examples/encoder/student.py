"""Distil the encoder: a student learns the subjects and the embeddings that MiniLM gives to plain text."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist import losses
from examples.encoder import recipe
from examples.encoder.memory import Memory
from examples.encoder.models import Student, features
from examples.encoder.text import split


class Texts(Dataset[dict[str, Any]]):
    """Each with its number."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"text": self.texts[number], "number": number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--looks", type=int, default=20, help="steps for each batch that the teacher labels")
    args = parser.parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    given = split(args.seed)
    texts = [*given.labelled, *given.unlabelled]
    known = [features(text) for text in texts]
    sampler = edldist.ElasticSampler(len(texts), recipe.BATCH, seed=args.seed)
    loader = edldist.DistillLoader(DataLoader(Texts(texts), batch_sampler=sampler), inputs="text", epochs=1)
    steps = args.looks * loader.batches_per_epoch
    model, memory = Student(), Memory()
    optimizer, schedule = recipe.optimization(model, steps)
    out = Path(os.environ.get("EDLDIST_OUTPUT", "out/encoder"))
    checkpointer = edldist.Checkpointer(out / "checkpoints")
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader, "memory": memory}
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model

    for batch, labels in loader:
        memory.add(batch["number"], labels)
        for _ in range(args.looks):
            numbers, said = memory.draw(len(batch["number"]))
            outputs = parallel([known[number] for number in numbers.tolist()])
            subject = losses.forward_kl(outputs["logits"], said["logits"])
            loss = subject + 3 * losses.cosine(outputs["embedding"], said["embedding"])
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            schedule.step()
        step += args.looks
        if rank == 0:
            edldist.report(step=step, steps=steps, loss=loss.item())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return

    checkpointer.save(step, state, wait=True)
    if rank == 0:
        save_file(model.state_dict(), out / "student.safetensors")
        found = recipe.accuracy(recipe.answers(model, given.test)["logits"], given)
        print(f"accuracy: {found:.1f}")
        edldist.report(step=step, steps=steps, accuracy=found)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
