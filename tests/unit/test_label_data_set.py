"""What a factory of ``label.data`` may return, and how its samples are shared out and numbered."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from edldist.config import LabelConfig
from edldist.errors import ConfigError, ModelError
from edldist.labeller.data_set import NumberedSamples, Stream, open_data

MODULE = "edldist_test_label_data"


class Squares(Dataset[dict[str, Tensor]]):
    """Twenty numbers, and what their readers asked for."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 20

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        self.read.append(number)
        return {"x": torch.tensor([float(number)])}


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter([torch.ones(1)])


def _parts(rank: int, world_size: int) -> Iterator[Tensor]:
    return iter([torch.full((2, 1), float(rank)), torch.full((2, 1), float(world_size))])


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made: Any = types.ModuleType(MODULE)
    monkeypatch.setitem(sys.modules, MODULE, made)
    made.squares = Squares
    made.tensors = lambda: TensorDataset(torch.arange(6.0))
    made.loader = lambda size=4: DataLoader(
        Squares(), batch_size=size, shuffle=True, collate_fn=lambda samples: [s["x"] for s in samples]
    )
    made.streamed = lambda: DataLoader(Endless())
    made.batches = lambda count=3: (torch.ones(2, 1) for _ in range(count))
    made.parts = _parts
    made.nothing = lambda: 5
    made.table = lambda: torch.ones(3, 2)
    made.fails = lambda: 1 / 0
    return made


def settings(factory: str, **more: Any) -> LabelConfig:
    return LabelConfig.model_validate({"data": f"{MODULE}:{factory}", **more})


pytestmark = pytest.mark.usefixtures("module")


def test_only_the_samples_that_are_asked_for_are_read(module: Any) -> None:
    samples = Squares()
    module.squares = lambda: samples
    data = open_data(settings("squares", batch_size=3), 0, 1)
    assert isinstance(data, NumberedSamples) and len(data) == 20
    batches = list(data.batches(np.array([1, 4, 9, 16])))
    assert [batch.numbers.tolist() for batch in batches if batch.numbers is not None] == [[1, 4, 9], [16]]
    assert batches[0].content["x"].tolist() == [[1.0], [4.0], [9.0]]
    assert samples.read == [1, 4, 9, 16]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_the_samples_without_an_overlap(ranks: int) -> None:
    data = [open_data(settings("squares", batch_size=2), rank, ranks) for rank in range(ranks)]
    parts = [each.own() for each in data if isinstance(each, NumberedSamples)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2, "one batch"


def test_nothing_missing_is_no_batch() -> None:
    data = open_data(settings("squares"), 0, 1)
    assert isinstance(data, NumberedSamples)
    assert list(data.batches(np.zeros(0, np.int64))) == []


def test_a_data_loader_lends_its_collating_and_not_its_order() -> None:
    data = open_data(settings("loader", batch_size=2, kwargs={"size": 5}), 0, 1)
    assert isinstance(data, NumberedSamples)
    (batch,) = data.batches(np.array([2, 3]))
    assert [value.tolist() for value in batch.content] == [[2.0], [3.0]]


def test_worker_processes_keep_numbers_and_samples_together() -> None:
    data = open_data(settings("tensors", batch_size=2, num_workers=1), 0, 1)
    assert isinstance(data, NumberedSamples)
    for batch in data.batches(np.array([5, 0, 3])):
        assert batch.numbers is not None
        assert batch.content[0].tolist() == batch.numbers.tolist()


@pytest.mark.parametrize("factory", ["batches", "streamed"])
def test_an_iterable_of_batches_is_read_as_it_comes(factory: str) -> None:
    data = open_data(settings(factory), 0, 1)
    assert isinstance(data, Stream)
    assert all(batch.numbers is None and batch.content.shape[1:] == (1,) for batch in data)


def test_a_stream_that_is_told_its_rank_may_be_read_by_several() -> None:
    data = open_data(settings("parts"), 1, 4)
    assert isinstance(data, Stream)
    assert [batch.content[0].item() for batch in data] == [1.0, 4.0]


@pytest.mark.parametrize(
    ("factory", "more", "ranks", "said"),
    [
        ("nothing", {}, 1, "returned a int, which is neither a data set nor an iterable"),
        ("table", {}, 1, "returned a Tensor: return a data set of samples"),
        ("batches", {"ids": "index"}, 1, "whose samples have no numbers"),
        ("batches", {}, 2, "2 ranks would all read the same stream"),
    ],
)
def test_what_cannot_be_labelled_is_refused(
    factory: str, more: dict[str, Any], ranks: int, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        open_data(settings(factory, **more), 0, ranks)


@pytest.mark.parametrize(
    ("factory", "more", "said"),
    [
        ("fails", {}, "data set .*fails: the factory raised:(.|\n)*ZeroDivisionError"),
        ("absent", {}, "has no 'absent'"),
        ("loader", {"kwargs": {"sise": 3}}, "cannot be called with sise.*label.kwargs"),
    ],
)
def test_a_factory_that_fails_says_so(factory: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        open_data(settings(factory, **more), 0, 1)
