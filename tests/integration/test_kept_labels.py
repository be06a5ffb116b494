"""What teachers said once is not asked again: by the same loop, by another one, by one without teachers."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from edldist import ElasticSampler, LabelStore, SampleIds, Sequences
from edldist.config import LabelConfig
from edldist.errors import ConfigError, InputError, StoreError
from edldist.labeller.data_set import Batch
from edldist.labeller.naming import batch_keys, inputs_of
from edldist.store.recipe import Recipe
from tests.harness import LocalJob

pytestmark = pytest.mark.timeout(240)


def shuffled(samples: int, size: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    ids = list(range(samples))
    random.Random(seed).shuffle(ids)
    return [{"id": torch.tensor(ids[at : at + size])} for at in range(0, samples, size)]


def consume(loader) -> list[int]:
    """Run one epoch, and check that each sample has its own label."""
    seen: list[int] = []
    for batch, labels in loader:
        value = batch["id"].to(torch.float64)
        assert torch.equal(labels["logits"], torch.stack([value, value * 2 + 1], dim=1))
        seen += batch["id"].tolist()
    return seen


def asked(loader) -> int:
    """Samples that teachers labelled."""
    return loader.stats()["store_misses"] - loader.stats()["coalesced"]


@pytest.fixture
def epochs() -> list[list[dict[str, torch.Tensor]]]:
    return [shuffled(200, 16, seed) for seed in range(3)]


class Shuffled:
    """A data loader with another order in each epoch."""

    def __init__(self, epochs) -> None:
        self.epochs = iter(epochs)

    def __iter__(self):
        return iter(next(self.epochs))


def test_a_second_epoch_asks_nobody(job: LocalJob, epochs, tmp_path) -> None:
    job.teacher(version="1", batch_size=7)
    loader = job.loader(Shuffled(epochs), inputs="id", store=tmp_path)
    assert sorted(consume(loader)) == list(range(200))
    first = loader.stats()
    assert (asked(loader), first["store_hits"]) == (200, 0)
    for _ in range(2):
        assert sorted(consume(loader)) == list(range(200))
    then = loader.stats()
    assert (asked(loader), then["store_hits"], then["done"]) == (200, 400, first["done"])
    assert then["store_dropped"] == 0


def test_a_later_run_finds_what_a_former_one_kept(memory_job: LocalJob, epochs, tmp_path) -> None:
    memory_job.teacher(version="1")
    with memory_job.loader(epochs[0], inputs="id", store=tmp_path) as first:
        consume(first)
    again = memory_job.loader(epochs[1], inputs="id", store=tmp_path)
    assert sorted(consume(again)) == list(range(200))
    assert (asked(again), again.stats()["done"]) == (0, 0)


def test_labels_of_another_version_are_not_found(memory_job: LocalJob, epochs, tmp_path) -> None:
    memory_job.teacher(version="1")
    with memory_job.loader(epochs[0], inputs="id", store=tmp_path) as first:
        consume(first)
    memory_job.teacher(name="other", version="2")
    other = memory_job.loader(epochs[1], inputs="id", teacher="other", store=tmp_path)
    assert sorted(consume(other)) == list(range(200))
    assert (asked(other), other.stats()["store_hits"]) == (200, 0)


def test_changed_weights_have_a_shelf_of_their_own(memory_job: LocalJob, tmp_path) -> None:
    data = [{"x": torch.arange(12.0).reshape(3, 4)}]
    torch.manual_seed(1)
    memory_job.teacher("Linear", name="old")
    torch.manual_seed(2)
    memory_job.teacher("Linear", name="new")
    labels = {}
    for _ in range(2):
        for name in ("old", "new"):
            with memory_job.loader(data, "x", teacher=name, store=tmp_path) as loader:
                ((_, its),) = loader
                assert torch.equal(labels.setdefault(name, its["logits"]), its["logits"])
    assert not torch.equal(labels["old"], labels["new"])
    assert len(LabelStore(tmp_path).recipes()) == 2


def test_no_teacher_is_needed_where_all_labels_are_kept(
    memory_job: LocalJob, epochs, tmp_path, monkeypatch
) -> None:
    worker = memory_job.teacher(version="1", codec="dense:fp16")
    with memory_job.loader(epochs[0], inputs="id", store=tmp_path) as first:
        kept = {
            id_: row
            for batch, labels in first
            for id_, row in zip(batch["id"].tolist(), labels["logits"], strict=True)
        }
    worker.drain()
    monkeypatch.setenv("EDLDIST_STORE", str(tmp_path))
    monkeypatch.setenv("EDLDIST_STORE_ONLY", "1")
    loader = memory_job.loader(epochs[1], inputs="id")
    for batch, labels in loader:
        assert torch.equal(labels["logits"], torch.stack([kept[int(id_)] for id_ in batch["id"]]))
    assert asked(loader) == 0
    more = memory_job.loader([{"id": torch.tensor([1, 2, 777, 3])}], inputs="id")
    with pytest.raises(
        StoreError,
        match=r"has no labels of teacher 'teacher' for 1 of the 4 samples.*place 2.*read as other inputs",
    ):
        consume(more)
    monkeypatch.setenv("EDLDIST_STORE_TEACHERS", '{"teacher": {"codec": "topk:4"}}')
    with pytest.raises(StoreError, match=r"none like that, but codec 'dense:fp16' instead of 'topk:4'"):
        memory_job.loader(epochs[1], inputs="id")
    with pytest.raises(ConfigError, match=r"store\.only.*LabelRequests needs teachers"):
        memory_job.requests(inputs="id")


def test_equal_inputs_in_flight_cost_one_forward(memory_job: LocalJob, tmp_path) -> None:
    data = [{"id": torch.tensor([1, 2, 1, 3])}, {"id": torch.tensor([3, 3, 2, 4])}] * 20
    loader = memory_job.loader(data, inputs="id", store=tmp_path)
    memory_job.teacher(version="1", batch_size=3)
    assert consume(loader) == [1, 2, 1, 3, 3, 3, 2, 4] * 20
    stats = loader.stats()
    assert stats["store_hits"] + stats["coalesced"] == 160 - 4


def test_a_restored_run_needs_no_teacher_either(memory_job: LocalJob, epochs, tmp_path) -> None:
    worker = memory_job.teacher(version="1")
    rows = [{"id": torch.tensor(id_)} for id_ in range(200)]

    def loader():
        sampler = DataLoader(rows, batch_sampler=ElasticSampler(200, 10, seed=3))
        return memory_job.loader(sampler, inputs="id", store=tmp_path)

    with loader() as first:
        consume(first)
        state = first.state_dict()
    worker.drain()
    second = loader()
    second.load_state_dict(state)
    assert sorted(consume(second)) == list(range(200))
    assert asked(second) == 0
    assert second.state_dict()["teachers"] == state["teachers"], "it has learnt from the same teacher"


def rank_loader(job: LocalJob, world_size: int):
    """The first rank's, of so many ranks; 20 samples are a global batch."""
    rows = [{"id": torch.tensor(id_)} for id_ in range(400)]
    sampler = ElasticSampler(400, 20, seed=3, rank=0, world_size=world_size)
    return job.loader(DataLoader(rows, batch_sampler=sampler), inputs="id", high_watermark=6)


def await_labelled(loader, batches: int) -> None:
    """Wait until so many batches are labelled ahead of the loop."""
    deadline = time.monotonic() + 60
    while loader.stats()["buffered"] < batches:
        assert time.monotonic() < deadline, loader.stats()
        time.sleep(0.01)


def taken(loader, batches: int) -> list[int]:
    """The samples of so many batches, each with its own label."""
    seen: list[int] = []
    for batch, labels in loader:
        assert torch.equal(labels["logits"][:, 0], batch["id"].to(torch.float64))
        seen += batch["id"].tolist()
        batches -= 1
        if not batches:
            return seen
    return seen


def test_the_next_generations_loader_finds_labels_that_are_here(memory_job: LocalJob) -> None:
    """A store is not needed; where the ranks are fewer, their parts are larger, and the rest is asked for."""
    worker = memory_job.teacher(version="1")
    first = rank_loader(memory_job, 3)
    loop = iter(first)
    next(loop)
    state = first.state_dict()
    await_labelled(first, 5)
    handed = [first.hand_on() for _ in range(2)]
    assert first.stats().get("store_hits") is None, "nobody pays for it before a change"
    first.close()

    fewer = rank_loader(memory_job, 2)
    fewer.take_on(handed[0])
    fewer.load_state_dict(state)
    assert len(taken(fewer, 5)) == 50
    assert fewer.stats()["store_hits"] == 5 * 7
    fewer.close()

    worker.drain()
    alike = rank_loader(memory_job, 3)
    alike.take_on(handed[1])
    alike.load_state_dict(state)
    assert len(taken(alike, 5)) == 35, "no teacher is here"
    alike.close()


def test_labels_of_a_teacher_that_nobody_can_tell_are_not_handed_on(memory_job: LocalJob) -> None:
    memory_job.teacher()
    with rank_loader(memory_job, 3) as loader:
        loop = iter(loader)
        next(loop)
        await_labelled(loader, 5)
        assert loader.hand_on() is None


def test_teachers_that_nobody_can_tell_apart_are_refused(memory_job: LocalJob, epochs, tmp_path) -> None:
    memory_job.teacher()
    with pytest.raises(StoreError, match=r"cannot be kept: it is no nn\.Module.*--model-version"):
        consume(memory_job.loader(epochs[0], inputs="id", store=tmp_path))


# --- several teachers, sequences, routes, versions ----------------------------------------------------


def test_each_of_several_teachers_has_its_own_labels(memory_job: LocalJob, epochs, tmp_path) -> None:
    memory_job.teacher("identify", name="a", version="1")
    memory_job.teacher("negative", name="b", version="1")
    loader = memory_job.loader(Shuffled(epochs), inputs="id", teacher=("a", "b"), store=tmp_path)
    for _ in range(2):
        for batch, labels in loader:
            assert torch.equal(labels["a/logits"][:, 0], batch["id"].double())
            assert torch.equal(labels["b/logits"], -batch["id"])
    assert (asked(loader), loader.stats()["store_hits"]) == (400, 400)


def test_routed_samples_are_kept_by_the_teacher_that_labelled_them(
    memory_job: LocalJob, epochs, tmp_path
) -> None:
    for name in ("a", "b"):
        memory_job.teacher("identify", name=name, version="1")
    loader = memory_job.loader(
        Shuffled(epochs), inputs="id", teacher=("a", "b"), route=lambda batch: batch["id"] % 2, store=tmp_path
    )
    for _ in range(2):
        assert sorted(consume(loader)) == list(range(200))
    assert (asked(loader), loader.stats()["store_hits"]) == (200, 200)


def test_sequences_are_kept_whatever_their_padding(memory_job: LocalJob, tmp_path) -> None:
    memory_job.teacher("token_sums", version="1")
    rng = random.Random(5)
    texts = [[rng.randrange(1, 90) for _ in range(rng.randint(1, 9))] for _ in range(60)]

    def batches(order):
        for at in range(0, 60, 6):
            some = [texts[number] for number in order[at : at + 6]]
            width = max(map(len, some))
            tokens = torch.tensor([text + [0] * (width - len(text)) for text in some])
            yield {"ids": tokens, "mask": tokens != 0}

    orders = [rng.sample(range(60), 60) for _ in range(2)]
    loader = memory_job.loader(
        Shuffled([list(batches(order)) for order in orders]), Sequences("ids", mask="mask"), store=tmp_path
    )
    kept: dict[tuple[int, ...], torch.Tensor] = {}
    for _ in range(2):
        for batch, labels in loader:
            for row, mask, its in zip(batch["ids"], batch["mask"], labels["logits"], strict=True):
                assert torch.equal(kept.setdefault(tuple(row[mask].tolist()), its[mask]), its[mask])
    assert loader.stats()["store_hits"] >= 60 and asked(loader) <= 60


def test_texts_are_found_whatever_is_beside_them(memory_job: LocalJob, tmp_path) -> None:
    memory_job.teacher("text_lengths", version="1")
    data = [["a", "word " * 40], ["a", "b"]]
    loader = memory_job.loader([{"text": texts} for texts in data], "text", store=tmp_path)
    list(loader)
    assert loader.stats()["store_hits"] + loader.stats()["coalesced"] == 1


def test_deterministic_labels_are_those_of_the_same_cut(memory_job: LocalJob, tmp_path) -> None:
    """``pass_size`` tells how many samples were in the pass: what a kernel may depend on."""
    memory_job.teacher("pass_size", version="1", batch_size=64)
    whole, parts = shuffled(12, 6), shuffled(12, 4)
    options = {"inputs": "id", "deterministic": True, "store": tmp_path}
    for data in (whole, parts, whole, parts):
        with memory_job.loader(data, **options) as loader:
            for batch, labels in loader:
                assert labels["logits"].tolist() == [[len(batch["id"])]] * len(batch["id"])
    assert loader.stats()["store_hits"] == 12


# --- samples that are named -----------------------------------------------------------------------------


def named(rows: int, noise: float = 0.0) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    x = torch.randn(rows, 4) + noise * torch.randn(rows, 4)
    return [{"x": x[at : at + 5], "id": torch.arange(at, at + 5)} for at in range(0, rows, 5)]


def test_samples_that_are_named_are_found_by_their_ids(memory_job: LocalJob, tmp_path) -> None:
    memory_job.teacher("Linear")
    loader = memory_job.loader(named(40), "x", store=tmp_path, ids=SampleIds("id", data="noise"))
    labels = [[its["logits"] for _, its in loader] for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*labels, strict=True))
    assert (asked(loader), loader.stats()["store_hits"]) == (40, 40)
    (recipe,) = LabelStore(tmp_path).recipes()
    assert isinstance(recipe, Recipe) and recipe.data == "noise"


def test_an_augmentation_without_a_seed_is_refused_with_the_samples_id(
    memory_job: LocalJob, tmp_path
) -> None:
    memory_job.teacher("Linear")
    loader = memory_job.loader(
        Shuffled([named(40), named(40, noise=0.1)]), "x", store=tmp_path, ids=SampleIds("id", data="noise")
    )
    list(loader)
    with pytest.raises(StoreError, match=r"sample \d+ is not shown as it was.*not seeded.*augmentation_seed"):
        list(loader)


def test_seeded_augmentations_have_labels_each(memory_job: LocalJob, tmp_path) -> None:
    memory_job.teacher("Linear")
    first, second = named(40), named(40, noise=0.1)
    for number, epoch in enumerate((first, second)):
        for batch in epoch:
            batch["seed"] = torch.full([5], number)
    loader = memory_job.loader(
        Shuffled([first, second, first]), "x", store=tmp_path, ids=SampleIds("id", "seed", data="noise")
    )
    labels = [torch.cat([its["logits"] for _, its in loader]) for _ in range(3)]
    assert torch.equal(labels[0], labels[2]) and not torch.equal(labels[0], labels[1])
    assert (asked(loader), loader.stats()["store_hits"]) == (80, 40)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ids": "id", "store": None}, ConfigError, "ids='id' without a store"),
        ({"ids": "id"}, ConfigError, "without the name of their data set"),
        ({"ids": 1.5}, ConfigError, "ids=1.5: use a key, an index, or a function"),
        ({"store": 7}, ConfigError, "store=7: use a path, a LabelStore, False for none, or None"),
        ({"ids": SampleIds("none", data="d")}, InputError, "ids='none': the batch has no such entry"),
        ({"ids": SampleIds("x", data="d")}, InputError, r"torch.float32\[5, 4\]: whole numbers"),
        ({"ids": SampleIds(lambda b: [1, 2], data="d")}, InputError, "2 ids for a batch of 5 samples"),
        (
            {"ids": SampleIds(lambda b: [1.5] * 5, data="d")},
            InputError,
            "hold 1.5: each is a whole number or",
        ),
    ],
)
def test_ids_and_stores_that_cannot_be(memory_job: LocalJob, tmp_path, options, error, text) -> None:
    memory_job.teacher("Linear")
    with pytest.raises(error, match=text):
        list(memory_job.loader(named(10), "x", **{"store": tmp_path} | options))


# --- labels that are made ahead of time -------------------------------------------------------------------


@pytest.mark.parametrize("sequences", [{"mask": "mask"}, {"mask": "mask", "asked": "wanted"}])
def test_sequences_that_are_labelled_ahead_are_those_that_a_loop_asks_for(
    memory_job: LocalJob, tmp_path, sequences
) -> None:
    """However either side pads and batches them."""
    rng = random.Random(1)
    texts = [[rng.randrange(1, 9) for _ in range(rng.randrange(1, 7))] for _ in range(40)]

    def batches(size: int, width: int):
        for at in range(0, len(texts), size):
            part = texts[at : at + size]
            ids = torch.tensor([text + [0] * (width - len(text)) for text in part])
            mask = ids > 0
            yield {"ids": ids, "mask": mask, "wanted": mask & (ids % 2 == 0)}

    settings = LabelConfig.model_validate({"data": "m:f", "inputs": "ids", "sequences": sequences})
    memory_job.teacher("token_sums", version="1")
    with memory_job.loader(
        [Batch(each, None) for each in batches(7, 9)], inputs_of(settings), store=tmp_path
    ) as labeller:
        list(labeller)
    keys = np.concatenate([batch_keys(settings, "")(Batch(each, None)) for each in batches(3, 6)])
    with LabelStore(tmp_path) as store:
        assert len(keys) > 20 and store.open().holds(keys, checked=True).all()
    with memory_job.loader(list(batches(4, 8)), Sequences("ids", **sequences), store=tmp_path) as loader:
        list(loader)
        assert asked(loader) == 0
