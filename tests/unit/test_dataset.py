"""A data set becomes a model's inputs as a DataLoader would make them, or says what is wrong where."""

from __future__ import annotations

import threading
from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import tests.models
from edldist.errors import ConfigError, ContractError, InputError, ModelError
from edldist.teacher.dataset import IndexedDataset, parse_entries
from edldist.teacher.reader import DatasetReader
from edldist.teacher.tasks import HeldTask, TaskInputs
from edldist.wire.tensors import pack

IMAGES = torch.arange(60.0).reshape(10, 2, 3)
Pair = namedtuple("Pair", "image label")


class Listed:
    """A map-style data set over any list of samples."""

    def __init__(self, samples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


@pytest.fixture
def made(monkeypatch):
    """Wraps an object as what a factory makes."""

    def make(dataset, entries=None) -> IndexedDataset:
        monkeypatch.setattr(tests.models, "made_dataset", lambda: dataset, raising=False)
        return IndexedDataset("tests.models:made_dataset", entries)

    return make


def index(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(
    ("sample", "entries", "names"),
    [
        (lambda i: IMAGES[i], None, {"0": "image"}),
        (lambda i: (IMAGES[i], i), None, {"0": "image"}),
        (lambda i: [IMAGES[i], i], None, {"0": "image"}),
        (lambda i: (i, IMAGES[i]), (1,), {"0": "image"}),
        (lambda i: (i, IMAGES[i]), (1, 0), {"0": "image", "1": "number"}),
        (lambda i: Pair(IMAGES[i], i), ("image",), {"image": "image"}),
        (lambda i: {"image": IMAGES[i], "n": i}, None, {"image": "image", "n": "number"}),
        (lambda i: {"image": IMAGES[i], "name": "text"}, ("image",), {"image": "image"}),
        (lambda i: (IMAGES[i].numpy(), i), None, {"0": "image"}),
        (lambda i: (np.int64(i),), None, {"0": "number"}),
    ],
)
def test_samples_of_any_form_become_the_inputs_that_a_loader_would_send(made, sample, entries, names):
    dataset = made(Listed([sample(i) for i in range(10)]), entries)
    inputs = dataset.read(index(7, 0, 7), None)
    expected = {"image": IMAGES[[7, 0, 7]], "number": index(7, 0, 7)}
    assert inputs.keys() == names.keys()
    for name, kind in names.items():
        assert inputs[name].dtype == expected[kind].dtype
        assert torch.equal(inputs[name], expected[kind])


def test_it_stacks_as_a_dataloader_does(made):
    data = TensorDataset(torch.randn(10, 3, dtype=torch.float16), torch.arange(10))
    ((by_value, _),) = DataLoader(data, batch_size=10)
    inputs = made(data).read(torch.arange(10), None)["0"]
    assert inputs.dtype == by_value.dtype and torch.equal(inputs, by_value)


def test_a_data_set_that_fetches_many_at_once_is_asked_so(made):
    class Together(Listed):
        def __getitem__(self, index):
            raise AssertionError("one by one")

        def __getitems__(self, indices):
            return [self.samples[i] for i in indices]

    assert made(Together(list(IMAGES))).read(index(3, 1), None)["0"].equal(IMAGES[[3, 1]])

    class Short(Together):
        def __getitems__(self, indices):
            return [self.samples[0]]

    with pytest.raises(InputError, match="__getitems__ .* returned a list for 2 indices"):
        made(Short(list(IMAGES))).read(index(3, 1), None)


class Seeded(Listed):
    def sample(self, index: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        return self.samples[index] + torch.randn(2, 3, generator=generator)


def test_seeds_go_to_the_method_that_takes_them(made):
    dataset = made(Seeded(list(IMAGES)))
    references = {"index": index(4, 4, 5), "seed": index(1, 2, 1)}
    first, second, third = dataset.read(*dataset.check(references))["0"]
    noise = Seeded(list(IMAGES))
    assert torch.equal(first, noise.sample(4, 1)) and torch.equal(third, noise.sample(5, 1))
    assert not torch.equal(first, second)
    assert dataset.check({"index": index(4)})[1] is None


@pytest.mark.parametrize(
    ("references", "says"),
    [
        ({"image": IMAGES}, "must bring 'index'.*not 'image'.*inputs="),
        ({"0": index(1)}, "not '0'"),
        ({"seed": index(1)}, "not 'seed'"),
        ({"index": index(1), "image": IMAGES[:1]}, "not 'index', 'image'"),
        ({"index": torch.tensor([1.0])}, r"'index' is float32\[1\]; it must be int64"),
        ({"index": torch.tensor([1], dtype=torch.int32)}, r"'index' is int32\[1\]"),
        ({"index": index(1, 2).reshape(2, 1)}, r"'index' is int64\[2, 1\]"),
        ({"index": index(1), "seed": torch.tensor([1.5])}, "'seed' is float32"),
        ({"index": index(1, 10, 2)}, "sample 1 of the task has index 10; .* has 10 samples"),
        ({"index": index(1, 2, -1)}, "sample 2 of the task has index -1"),
        ({"index": index()}, "names no samples"),
        ({"index": index(1), "seed": index(1)}, r"no method sample\(index, seed\)"),
    ],
)
def test_references_that_name_no_samples_are_refused(made, references, says):
    final = "task" not in says and "no samples" not in says
    with pytest.raises(ContractError if final else InputError, match=says):
        made(Listed(list(IMAGES))).check(references)


@pytest.mark.parametrize(
    ("samples", "entries", "says"),
    [
        ([(1,), ("text",)], None, "entry '0' of samples 4..5 of the task cannot be stacked"),
        ([torch.zeros(2), torch.zeros(3)], None, r"cannot be stacked: RuntimeError.*one shape"),
        ([{"x": 1, "y": 2}, {"x": 1}], None, "some samples lack it"),
        (
            [("a",), (b"b",)],
            None,
            "cannot be stacked: InputError: input '0' begins with a str and has a bytes",
        ),
        ([{"x": None}] * 2, None, "cannot be stacked"),
        ([["a"], ["b"]], (0, 1), "has no entry 1"),
        ([(1, 2), (3,)], (1,), r"sample 5 of the task \(index 1\).*no entry 1 .*a tuple of 1"),
        ([{"x": 1}] * 2, ("image",), "no entry 'image' .*a dict with keys 'x'"),
        ([Pair(1, 2)] * 2, ("mask",), "no entry 'mask'"),
    ],
)
def test_samples_that_make_no_batch_are_named(made, samples, entries, says):
    final = "stacked" not in says and "lack" not in says
    with pytest.raises(ContractError if final else InputError, match=says):
        made(Listed(samples), entries).read(index(0, 1), None, first=4)


def test_what_the_data_set_raises_is_shown_with_its_sample(made):
    class Broken(Listed):
        def __getitem__(self, index):
            if index == 3:
                raise OSError("the disk is broken on purpose")
            return self.samples[index]

        def sample(self, index, seed):
            return self[index]

    dataset = made(Broken(list(IMAGES)))
    for seed in (None, index(0, 0)):
        with pytest.raises(InputError, match=r"raised on sample 6 of the task \(index 3\)") as caught:
            dataset.read(index(1, 3), seed, first=5)
        assert 'raise OSError("the disk is broken on purpose")' in str(caught.value)
        assert "teacher/dataset.py" not in str(caught.value)


class NoLength:
    def __getitem__(self, index):
        return index


class NoItems:
    def __len__(self):
        return 3


class BadLength(Listed):
    def __len__(self):
        raise RuntimeError("no length on purpose")


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (NoLength(), "NoLength without __len__; it must return a map-style"),
        (NoItems(), "NoItems without __getitem__"),
        (iter([1]), "without __len__ and __getitem__"),
        (BadLength([]), r"len\(\) raised[\s\S]*no length on purpose"),
    ],
)
def test_what_is_no_map_style_data_set_is_refused(made, dataset, says):
    with pytest.raises(ModelError, match=says):
        made(dataset)


def test_a_factory_that_cannot_be_had_is_a_dataset_error():
    with pytest.raises(ConfigError, match="dataset 'x': use package.module:factory"):
        IndexedDataset("x")
    with pytest.raises(ModelError, match=r"dataset tests.models:raises_on_load: the factory raised"):
        IndexedDataset("tests.models:raises_on_load")


def test_entries_are_parsed_or_refused():
    assert parse_entries("image, 2") == ("image", 2)
    for wrong in ("", "a,", "a,a", "1,1"):
        with pytest.raises(ConfigError, match="use different keys or positions"):
            parse_entries(wrong)


def task(*indices: int) -> HeldTask:
    specs, frames = pack({"index": index(*indices)})
    return HeldTask("s", 1, len(indices), len(indices), False, TaskInputs(len(indices), specs, frames), 0)


@pytest.mark.parametrize("threads", [1, 3])
def test_parts_come_in_order_whichever_thread_reads_them(made, threads):
    reader = DatasetReader(made(Listed(list(IMAGES))), threads)
    parts = reader.read([task(5, 1, 2, 9), task(0), task(7, 7)])
    read = torch.cat([part.result(10)["0"] for part in parts])
    assert torch.equal(read, IMAGES[[5, 1, 2, 9, 0, 7, 7]])
    reader.close()
    for thread in reader._threads:
        thread.join(10)
        assert not thread.is_alive()


def test_one_thread_is_the_only_one_that_touches_the_data_set(made):
    touched = set()

    class Touchy(Listed):
        def __getitem__(self, index):
            touched.add(threading.current_thread().name)
            return self.samples[index]

    reader = DatasetReader(made(Touchy(list(IMAGES))))
    for part in reader.read([task(1, 2), task(3)]):
        part.result(10)
    assert touched == {"edldist-dataset-0"}
    reader.close()


def test_a_task_that_cannot_be_read_leaves_the_others_alone(made):
    reader = DatasetReader(made(Listed(list(IMAGES))))
    good, bad, other = reader.read([task(1), task(99), task(2)])
    assert torch.equal(good.result(10)["0"], IMAGES[1:2]) and torch.equal(other.result(10)["0"], IMAGES[2:3])
    with pytest.raises(InputError, match="index 99"):
        bad.result(10)
    reader.close()
