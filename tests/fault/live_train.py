"""The student of the live faults: the loop of ``train.py`` over an ``edldist.LiveGroup``.

A line of the book says that this rank applied a step, and with which samples.
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
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import edldist
from tests.fault.train import Ids, Ledger, agreed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument(
        "--until", type=Path, help="train whole epochs, however many, until this file is there"
    )
    parser.add_argument("--hurry", type=Path, help="no pause between steps once this file is there")
    parser.add_argument("--parallel", type=int, default=0, help="wrap the model for torch's own averaging")
    options = parser.parse_args()
    output = Path(os.environ["EDLDIST_OUTPUT"])

    torch.manual_seed(0)
    model = nn.Linear(4, 2, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    ledger = Ledger(options.samples)
    group = edldist.LiveGroup({"model": model, "optimizer": optimizer, "ledger": ledger})
    for generation in group:
        with generation:
            train(options, output, generation, model, optimizer, ledger)


def train(options, output, generation, model, optimizer, ledger) -> None:
    sampler = edldist.ElasticSampler(options.samples, options.batch_size)
    loader = edldist.DistillLoader(
        DataLoader(Ids(options.samples), batch_sampler=sampler), inputs=("id", "x"), heartbeat_ttl_s=3.0
    )
    checkpointer = edldist.Checkpointer()
    step = generation.resume(checkpointer, loader=loader)
    several = generation.world_size > 1
    shown = nn.parallel.DistributedDataParallel(model) if options.parallel and several else model
    here = {"rank": generation.rank, "world": generation.world_size, "generation": generation.number}
    with (output / f"steps-rank-{os.getpid()}.jsonl").open("a") as book:
        book.write(json.dumps({"t": time.time(), "begins": step, "pid": os.getpid()} | here) + "\n")
        book.flush()
        last = options.epochs if options.until is None else sys.maxsize
        for epoch in range(loader.epoch, last):
            begins = epoch and not sampler.samples
            if options.until is not None and begins and agreed(options.until.exists()):
                break
            for batch, labels in loader:
                ids, target = batch["id"], labels["logits"]
                if not torch.equal(target[:, 0], ids.double()):
                    sys.exit(f"step {step}: labels of {target[:, 0].tolist()} for samples {ids.tolist()}")
                loss = edldist.losses.mse(shown(batch["x"]), torch.sin(target)) * loader.loss_weight
                optimizer.zero_grad()
                loss.backward()
                taken = ledger.of_all(ids[: 0 if loader.loss_weight == 0 else len(ids)])
                step = generation.step(optimizer, averaged=bool(options.parallel))
                ledger.counts += taken
                record = {"t": time.time(), "step": step, "epoch": epoch, "pid": os.getpid()}
                book.write(json.dumps(record | here | {"ids": ids.tolist()}) + "\n")
                book.flush()
                edldist.report(step=step, epoch=epoch, loss=loss.detach())
                if checkpointer.due(step):
                    checkpointer.save(step, generation.state)
                if edldist.should_stop():
                    checkpointer.save(step, generation.state, wait=True)
                    return
                if options.step_s and not (options.hurry is not None and options.hurry.exists()):
                    time.sleep(options.step_s)
    checkpointer.save(step, generation.state, wait=True)
    if generation.rank == 0:
        weights = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
        result = {
            "step": step,
            "epochs": loader.epoch,
            "weights": weights.tolist(),
            "sha256": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
            "counts": sorted(set(ledger.counts.tolist())),
            "stats": loader.stats(),
        }
        (output / "done.json").write_text(json.dumps(result))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
