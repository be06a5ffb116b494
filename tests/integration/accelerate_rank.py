"""One rank of a job with Accelerate: trains as its plans say, and prints what it saw as a line of JSON.

Each plan: ``coordinator`` (None: the teacher labels in this process), ``samples``, ``batch_size`` of a rank,
``window`` (batches to accumulate), ``epochs``, ``data`` ("shuffled", "dispatched": the same, read by rank 0
for all, "elastic", "stream" or "meeting"),
``order`` ("inside": the data loader is prepared; "outside": the DistillLoader is), and where wanted
``lock_step``, ``checkpoints`` and ``die_after`` (steps).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import GradientState
from accelerate.utils import DataLoaderConfiguration
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

import edldist
from edldist.errors import ConfigError
from tests.models import Doubled

FEATURES = 4


def sample(number: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {"id": torch.tensor(number), "x": torch.randn(FEATURES, generator=generator)}


class Table(Dataset):
    def __init__(self, samples: int) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return sample(number)


class Stream(IterableDataset):
    def __init__(self, samples: int) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return map(sample, range(self._samples))


class Meeting:
    """A data loader that edldist has never heard of: rank 0 says which samples come next."""

    def __init__(self, samples: int, batch_size: int) -> None:
        self._samples = samples
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        rank, world = dist.get_rank(), dist.get_world_size()
        for start in range(0, self._samples, self._batch_size * world):
            told = torch.tensor([start if rank == 0 else -1])
            dist.broadcast(told, 0)
            first = int(told) + rank * self._batch_size
            yield default_collate([sample(number) for number in range(first, first + self._batch_size)])


class LabelsHere:
    """The loop's other half without edldist: the same batches, with labels that this process computes."""

    epoch = 0
    loss_weight = 1.0

    def __init__(self, data_loader: Any) -> None:
        self._data_loader = data_loader
        self._teacher = Doubled()

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        for batch in self._data_loader:
            with torch.inference_mode():
                logits = self._teacher(batch["x"])
            yield batch, {"logits": logits.clone()}


class SampledLabelsHere(LabelsHere):
    """The same, of a data loader that Accelerate did not prepare: sets the epoch, and tells it of the end."""

    end_of_dataloader = False
    remainder = -1
    next_epoch = 0

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Tensor]]]:
        self._data_loader.batch_sampler.set_epoch(self.next_epoch)
        self.next_epoch += 1
        GradientState()._add_dataloader(self)
        for number, pair in enumerate(super().__iter__(), 1):
            self.end_of_dataloader = number == len(self._data_loader)
            yield pair
        GradientState()._remove_dataloader(self)


def data_loader(plan: dict[str, Any], world: int) -> Any:
    size, each = plan["samples"], plan["batch_size"]
    if plan["data"] == "stream":
        return DataLoader(Stream(size), batch_size=each)
    if plan["data"] == "meeting":
        return Meeting(size, each)
    if plan["data"] == "elastic":
        return DataLoader(Table(size), batch_sampler=edldist.ElasticSampler(size, each * world, seed=5))
    generator = torch.Generator().manual_seed(5)
    return DataLoader(Table(size), batch_size=each, shuffle=True, generator=generator)


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    seen = {}
    for name, plan in job["plans"].items():
        try:
            seen[name] = train(plan, world)
        except ConfigError as exc:
            seen[name] = {"error": str(exc)}
    print(json.dumps(seen), flush=True)
    if world > 1:
        dist.destroy_process_group()


def train(plan: dict[str, Any], world: int) -> dict[str, Any]:
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=plan["window"],
        dataloader_config=DataLoaderConfiguration(
            dispatch_batches=True if plan["data"] == "dispatched" else None
        ),
    )
    torch.manual_seed(11)
    model = nn.Linear(FEATURES, 3).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loader: Any = data_loader(plan, world)
    if plan["order"] == "inside":
        loader = accelerator.prepare(loader)
    if plan["coordinator"] is None:
        loader = (SampledLabelsHere if plan["data"] == "elastic" else LabelsHere)(loader)
    else:
        loader = edldist.DistillLoader(
            loader, inputs="x", coordinator=plan["coordinator"], lock_step=plan.get("lock_step")
        )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    seen: dict[str, Any] = {"ids": [], "losses": [], "steps": [], "gathered": []}
    checkpointer = step = None
    if "checkpoints" in plan:
        state = {"model": model, "optimizer": optimizer, "loader": loader}
        checkpointer = edldist.Checkpointer(plan["checkpoints"])
        step = checkpointer.restore(state)
    seen["from"] = step = step or 0
    for epoch in range(loader.epoch, plan["epochs"]):
        seen["ids"].append([])
        seen["steps"].append([])
        number = 0
        for batch, labels in loader:
            number += 1
            with accelerator.accumulate(model):
                loss = edldist.losses.kd(model(batch["x"].double()), labels["logits"], alpha=1.0)
                accelerator.backward(loss * loader.loss_weight)
                optimizer.step()
                optimizer.zero_grad()
            seen["ids"][-1] += batch["id"].tolist()
            seen["losses"].append(loss.item())
            if epoch == plan["epochs"] - 1:
                seen["gathered"] += accelerator.gather_for_metrics(batch["id"]).tolist()
            if not accelerator.sync_gradients:
                continue
            seen["steps"][-1].append(number)
            step += 1
            if checkpointer is not None and step % 2 == 0:
                checkpointer.save(step, state, wait=True)
            if step == plan.get("die_after"):
                os._exit(9)
    seen["weights"] = [value.tolist() for value in model.state_dict().values()]
    if checkpointer is not None:
        checkpointer.close()
    if plan["coordinator"] is not None:
        loader.close()
    return seen


if __name__ == "__main__":
    main()
