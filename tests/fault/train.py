"""The student of the fault tests: a plain training loop that keeps books on every sample.

Its teacher (``tests.fault.teachers``) labels a sample with its own id, so each step can check that
labels and samples belong together. The ledger counts, in the state that a checkpoint holds, how
often each sample took part: the surviving model has seen each one exactly ``--epochs`` times.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, Dataset

import edldist


class Ids(Dataset):
    """Samples that are functions of their position."""

    def __init__(self, samples: int, ballast: int = 0) -> None:
        self.samples = samples
        self.ballast = ballast

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.sin(torch.arange(1, 5, dtype=torch.float64) * (index + 1))
        sample = {"id": torch.tensor(index), "x": x}
        if self.ballast:
            sample["ballast"] = torch.full((self.ballast,), index % 251, dtype=torch.uint8)
        return sample


class Ledger:
    """How often each sample counted, in the state that survives."""

    def __init__(self, samples: int) -> None:
        self.counts = torch.zeros(samples, dtype=torch.int64)

    def add(self, ids: torch.Tensor) -> None:
        self.counts += self.of_all(ids)

    def of_all(self, ids: torch.Tensor) -> torch.Tensor:
        """How often each sample is in one step of all ranks. A collective."""
        step = torch.zeros_like(self.counts)
        step.index_add_(0, ids, torch.ones_like(ids))
        if dist.is_initialized():
            dist.all_reduce(step)
        return step

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.counts.copy_(state["counts"])


def agreed(here: bool) -> bool:
    """Whether any rank says so: all take the same turn."""
    if not dist.is_initialized():
        return here
    flag = torch.tensor(int(here))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--high-watermark", type=int, default=8)
    parser.add_argument("--heartbeat-ttl-s", type=float, default=3.0)
    parser.add_argument("--first-deadline-s", type=float, default=300.0)
    parser.add_argument("--min-deadline-s", type=float, default=10.0)
    parser.add_argument("--max-bytes", type=int, default=4 << 30)
    parser.add_argument("--ballast", type=int, default=0, help="bytes that make each sample heavier")
    parser.add_argument(
        "--until", type=Path, help="train whole epochs, however many, until this file is there"
    )
    parser.add_argument("--hurry", type=Path, help="no pause between steps once this file is there")
    parser.add_argument(
        "--count-wrong", type=int, default=0, help="write down how many labels are wrong, and go on"
    )
    parser.add_argument("--hold", type=Path, help="take no step while this file is there")
    options = parser.parse_args()
    output = Path(os.environ["EDLDIST_OUTPUT"])
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if several else 0

    torch.manual_seed(0)
    model: nn.Module = nn.Linear(4, 2, dtype=torch.float64)
    bare = model
    if several:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    sampler = edldist.ElasticSampler(options.samples, options.batch_size)
    loader = edldist.DistillLoader(
        DataLoader(Ids(options.samples, options.ballast), batch_sampler=sampler),
        inputs=("id", "x", "ballast") if options.ballast else ("id", "x"),
        high_watermark=options.high_watermark,
        heartbeat_ttl_s=options.heartbeat_ttl_s,
        first_deadline_s=options.first_deadline_s,
        min_deadline_s=options.min_deadline_s,
        max_bytes=options.max_bytes,
    )
    ledger = Ledger(options.samples)
    state = {"model": model, "optimizer": optimizer, "loader": loader, "ledger": ledger}
    checkpointer = edldist.Checkpointer()
    step = checkpointer.restore(state) or 0

    book = (output / f"steps-rank{rank}.jsonl").open("a")
    last = options.epochs if options.until is None else sys.maxsize
    for epoch in range(loader.epoch, last):
        if options.until is not None and epoch and not sampler.samples and agreed(options.until.exists()):
            break
        for batch, labels in loader:
            ids, target = batch["id"], labels["logits"]
            wrong = int((target[:, 0] != ids.double()).sum())
            if wrong and not options.count_wrong:
                sys.exit(f"step {step}: labels of {target[:, 0].tolist()} for samples {ids.tolist()}")
            if options.ballast and not torch.equal(labels["ballast"], batch["ballast"] + 1):
                sys.exit(f"step {step}: the large labels of samples {ids.tolist()} are wrong")
            loss = edldist.losses.mse(model(batch["x"]), torch.sin(target)) * loader.loss_weight
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            ledger.add(ids[: 0 if loader.loss_weight == 0 else len(ids)])
            step += 1
            record = {
                "t": time.time(),
                "step": step,
                "epoch": epoch,
                "rank": rank,
                "world": dist.get_world_size() if several else 1,
            }
            record |= {"wrong": wrong} if wrong else {}
            book.write(json.dumps(record | {"ids": ids.tolist(), "pid": os.getpid()}) + "\n")
            book.flush()
            edldist.report(step=step, epoch=epoch, loss=loss.detach())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
            while options.hold is not None and options.hold.exists():
                time.sleep(0.01)
            if options.step_s and not (options.hurry is not None and options.hurry.exists()):
                time.sleep(options.step_s)
    checkpointer.save(step, state, wait=True)
    if rank == 0:
        weights = torch.cat([p.detach().reshape(-1) for p in bare.parameters()])
        result = {
            "step": step,
            "epochs": loader.epoch,
            "weights": weights.tolist(),
            "sha256": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
            "counts": sorted(set(ledger.counts.tolist())),
            "stats": loader.stats(),
        }
        (output / "done.json").write_text(json.dumps(result))
    checkpointer.close()
    loader.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
