"""Students that send indices get the labels they would get for the samples themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

import tests.models
from edldist.errors import ContractError, PoisonTaskError
from edldist.wire.memory import MemoryTransport
from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)

SAMPLES = 300


class Pixels(Dataset):
    """Images that a seed augments, with their labels."""

    def __init__(self) -> None:
        self.images = torch.randn(SAMPLES, 3, 6, 6, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], index % 10

    def sample(self, index: int, seed: int) -> tuple[Tensor, int]:
        noise = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(seed))
        return self.images[index] + noise, index % 10


class Broken(Pixels):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 42:
            raise OSError("sample 42 cannot be read on purpose")
        return super().__getitem__(index)


def net() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))


@pytest.fixture(params=[MemoryTransport, ZmqTransport], ids=["memory", "zmq"])
def job(request, monkeypatch):
    for name, factory in {"pixels": Pixels, "broken": Broken, "net": net}.items():
        monkeypatch.setattr(tests.models, name, factory, raising=False)
    with local_job(request.param()) as made:
        yield made
        assert made.errors == []


def references(seeded: bool = False, upto: int = SAMPLES) -> list[dict]:
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(3))[:upto]
    if not seeded:
        return [{"index": part} for part in order.split(37)]
    return [{"index": part, "seed": part * 7 + 1} for part in order.split(37)]


def labels_of(loader) -> Tensor:
    return torch.cat([labels["logits"] for _, labels in loader])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("seeded", [False, True])
def test_labels_are_bit_for_bit_those_of_the_samples_themselves(job, seeded, threads):
    data = Pixels()
    batches = references(seeded)
    by_value = [
        default_collate(
            [
                data.sample(i, int(batch["seed"][n])) if seeded else data[i]
                for n, i in enumerate(batch["index"].tolist())
            ]
        )
        for batch in batches
    ]
    job.teacher("net", name="value", batch_size=16)
    job.teacher("net", name="named", batch_size=16, dataset="tests.models:pixels", dataset_threads=threads)
    fixed = {"deterministic": True, "task_size": 16}
    value = job.loader(by_value, inputs=0, teacher="value", **fixed)
    keys = ("index", "seed") if seeded else "index"
    named = job.loader(batches, inputs=keys, teacher="named", **fixed)
    first = labels_of(value)
    assert first.shape == (SAMPLES, 10)
    assert torch.equal(labels_of(named), first)
    assert named.stats()["failed"] == 0


def test_the_students_own_loader_yields_the_indices(job):
    data = Pixels()

    class Indexed(Dataset):
        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> dict:
            return {"image": data[index][0], "index": index}

    job.teacher("net", batch_size=50, dataset="tests.models:pixels", dataset_threads=2)
    model = net().eval()
    seen = 0
    for batch, labels in job.loader(DataLoader(Indexed(), batch_size=40, shuffle=True), inputs="index"):
        torch.testing.assert_close(labels["logits"], model(batch["image"]).detach())
        seen += len(batch["index"])
    assert seen == SAMPLES


def test_out_of_memory_costs_no_sample_that_is_named_by_index(job, monkeypatch):
    model = net().eval()

    def small(x: Tensor) -> Tensor:
        if len(x) > 6:
            raise torch.OutOfMemoryError("no memory on purpose")
        return model(x).detach()

    monkeypatch.setattr(tests.models, "small", lambda: small, raising=False)
    job.teacher("small", batch_size="auto", dataset="tests.models:pixels")
    loader = job.loader(references(), inputs="index")
    order = torch.cat([batch["index"] for batch in references()])
    torch.testing.assert_close(labels_of(loader), model(Pixels().images[order]).detach())
    assert loader.stats()["failed"] == 0


@pytest.mark.parametrize(
    ("batch", "dataset", "says"),
    [
        (torch.tensor([41, 42, 43]), "broken", r"sample 1 of the task \(index 42\)[\s\S]*cannot be read on"),
        (torch.tensor([1, 2, SAMPLES]), "pixels", r"sample 2 of the task has index 300; .* has 300 samples"),
        (torch.tensor([1, 2, -1]), "pixels", r"sample 2 of the task has index -1"),
    ],
)
def test_a_sample_that_cannot_be_read_ends_in_the_loop_with_its_position(job, batch, dataset, says):
    job.teacher("net", dataset=f"tests.models:{dataset}", dataset_threads=2 if dataset == "pixels" else 1)
    data = [{"index": torch.arange(3)}, {"index": batch}]
    loader = job.loader(data, inputs="index", task_size=3)
    with pytest.raises(PoisonTaskError, match=says) as caught:
        list(loader)
    assert (caught.value.batch, caught.value.samples, len(caught.value.attempts)) == (1, range(3), 3)


def test_inputs_by_value_are_refused_by_a_worker_that_reads_its_own(job):
    job.teacher("net", dataset="tests.models:pixels")
    with pytest.raises(ContractError, match=r"a task must bring 'index'.*not '0'"):
        list(job.loader([torch.zeros(2, 3, 6, 6)]))


def test_seeds_are_refused_by_a_data_set_that_takes_none(job, monkeypatch):
    monkeypatch.setattr(tests.models, "plain", lambda: Pixels().images, raising=False)
    job.teacher("net", dataset="tests.models:plain")
    with pytest.raises(ContractError, match=r"no method sample\(index, seed\)"):
        list(job.loader(references(seeded=True, upto=5), inputs=("index", "seed")))


def test_a_worker_process_whose_data_set_cannot_be_made_ends_with_two(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            def model():
                return lambda x: x

            def dataset():
                raise FileNotFoundError("no data on purpose")
            """
        )
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [
            *(sys.executable, str(root / "launch" / "__main__.py"), "teacher", "--device", "cpu"),
            *("--coordinator", "tcp://127.0.0.1:9", "--model", "mine:model", "--dataset", "mine:dataset"),
        ],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "error: dataset mine:dataset: the factory raised:" in done.stderr
    assert "no data on purpose" in done.stderr
