"""A rank's walk over what is missing, on a real store, with a loop that labels at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edldist.config import LabelConfig
from edldist.errors import StoreError
from edldist.labeller import walk as walking
from edldist.labeller.data_set import NumberedSamples, open_data
from edldist.labeller.naming import batch_keys
from edldist.labeller.walk import Reader, Walk
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.store.label_store import LabelStore
from edldist.store.recipe import Recipe
from edldist.store.sample_key import keys_of_ids
from edldist.store.shelf import Shelf
from edldist.wire.messages import TensorSpec
from tests.label_files import check_numbers, listed_files

DATA = "numbers"
COUNT = 100
SETTINGS = LabelConfig.model_validate(
    {
        "data": "tests.models:Numbers",
        "kwargs": {"count": COUNT},
        "inputs": "id",
        "ids": "index",
        "batch_size": 8,
        "shard_rows": 24,
    }
)


class Loop:
    """Stands where a ``DistillLoader`` would: what it reads is labelled, and on the shelf, at once."""

    def __init__(self, reader: Reader, shelf: Shelf) -> None:
        self.reader = reader
        self.shelf = shelf
        self.shelves = {"teacher": shelf}
        self.asked: list[int] = []
        self.poison: set[int] = set()
        self.lost: set[int] = set()
        self.counts = {"samples": 0, "skipped": 0}

    def stats(self) -> dict[str, int]:
        return self.counts

    def __iter__(self) -> Iterator[Any]:
        for batch in self.reader.batches:
            assert batch.numbers is not None
            numbers = batch.numbers.tolist()
            self.asked += numbers
            self.counts["skipped"] += len(self.poison & set(numbers))
            self._put([each for each in numbers if each not in self.poison | self.lost])
            self.lost -= set(numbers)
            self.counts["samples"] += len(numbers)
            yield batch, {}

    def _put(self, numbers: list[int]) -> None:
        labels = np.array([[each, 2 * each + 1] for each in numbers], np.float64).reshape(-1, 2)
        keys = keys_of_ids(DATA, numbers)
        specs = [TensorSpec(name="logits", dtype="float64", shape=[len(numbers), 2])]
        self.shelf.put(keys, specs, [labels.tobytes()], np.zeros_like(keys))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore(tmp_path / "kept") as opened:
        yield opened


@pytest.fixture
def loop(store: LabelStore) -> Loop:
    made_by = Fingerprint(model="tests.models:identify", version="1", codec=parse_spec("dense"))
    return Loop(Reader(), store.shelf(Recipe(fingerprint=made_by, data=DATA)))


def walk(loop: Any, rank: int = 0, ranks: int = 1) -> bool:
    data = open_data(SETTINGS, rank, ranks)
    assert isinstance(data, NumberedSamples)
    keys = lambda numbers: keys_of_ids(DATA, numbers.tolist())  # noqa: E731
    return Walk(data, loop, loop.reader, 1, SETTINGS, keys, batch_keys(SETTINGS, DATA), (rank, ranks)).run()


def test_all_is_labelled_and_in_files_of_the_size_that_was_asked_for(loop: Loop, tmp_path: Path) -> None:
    assert walk(loop)
    check_numbers(tmp_path / "kept", DATA, COUNT)
    assert len(listed_files(tmp_path / "kept")) == 5, "of 24 samples, and the rest"


def test_what_is_in_files_is_not_read_again(loop: Loop) -> None:
    walk(loop)
    loop.asked.clear()
    assert walk(loop)
    assert loop.asked == []


def test_each_of_two_ranks_labels_its_own_part(loop: Loop, tmp_path: Path) -> None:
    assert walk(loop, 1, 2)
    assert {number // 8 % 2 for number in loop.asked} == {1}
    assert walk(loop, 0, 2)
    assert sorted(loop.asked) == list(range(COUNT)), "nobody asked for a sample of the other"
    check_numbers(tmp_path / "kept", DATA, COUNT)


def test_labels_that_did_not_get_to_a_file_are_asked_for_once_more(loop: Loop, tmp_path: Path) -> None:
    loop.lost = {3, 50, 99}
    assert walk(loop)
    assert loop.asked[COUNT:] == [3, 50, 99]
    check_numbers(tmp_path / "kept", DATA, COUNT)


def test_labels_that_are_damaged_are_asked_for_again(loop: Loop, tmp_path: Path) -> None:
    """They are found at the end, where all that a job calls labelled is compared with its checksums."""
    walk(loop)
    file = listed_files(tmp_path / "kept")[0]
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with LabelStore(tmp_path / "kept") as later:
        again = Loop(Reader(), later.shelf(loop.shelf.recipe))
        assert walk(again)
        assert again.asked == list(range(24))
        assert later.shelf(loop.shelf.recipe).holds(keys_of_ids(DATA, range(COUNT)), checked=True).all()


@pytest.mark.parametrize("numbered", [True, False])
def test_before_its_end_all_that_is_there_is_compared_with_its_checksums(
    loop: Loop, tmp_path: Path, numbered: bool
) -> None:
    """Of a large file whose list is sound a look at the keys tells nothing."""
    width = 1 << 12
    keys = keys_of_ids(DATA, range(COUNT))
    specs = [TensorSpec(name="logits", dtype="float64", shape=[COUNT, width])]
    loop.shelf.put(keys, specs, [np.ones((COUNT, width)).tobytes()], np.zeros_like(keys), wait=True)
    assert loop.shelf.flush(60)
    file = listed_files(tmp_path / "kept")[-1]
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    with LabelStore(tmp_path / "kept") as later:
        again = Loop(Reader(), later.shelf(loop.shelf.recipe))
        again._put = lambda numbers: None  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="their labels are in no file"):
            walk(again) if numbered else read_all(again)
        assert COUNT - 1 in again.asked, "it was damaged"


def test_what_nobody_can_label_is_left_out(loop: Loop, tmp_path: Path) -> None:
    loop.poison = {7, 8}
    assert walk(loop)
    assert loop.asked == list(range(COUNT)), "and not asked for again"
    keys = keys_of_ids(DATA, range(COUNT))
    assert np.flatnonzero(~loop.shelf.holds(keys)).tolist() == [7, 8]


def test_a_store_that_loses_all_of_it_ends_the_walk(loop: Loop) -> None:
    loop.lost = set(range(COUNT))
    loop._put = lambda numbers: None  # type: ignore[method-assign]
    with pytest.raises(StoreError, match=f"{COUNT} samples were labelled, and their labels are in no file"):
        walk(loop)
    assert len(loop.asked) == 2 * COUNT


def test_who_is_asked_to_stop_writes_what_there_is(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "should_stop", lambda: len(loop.asked) >= 40)
    assert not walk(loop)
    keys = keys_of_ids(DATA, range(COUNT))
    assert np.flatnonzero(loop.shelf.holds(keys)).tolist() == list(range(40))
    monkeypatch.setattr(walking, "should_stop", lambda: False)
    assert walk(loop)
    assert loop.asked == list(range(COUNT)), "it goes on behind them"
    check_numbers(tmp_path / "kept", DATA, COUNT)


def read_all(loop: Any) -> bool:
    """A walk over samples that have to be read to be known."""
    data = open_data(SETTINGS, 0, 1)
    keys = batch_keys(SETTINGS, DATA)
    return Walk(data, loop, loop.reader, 1, SETTINGS, None, keys, (0, 1)).run()


def test_samples_that_have_to_be_read_are_done_once_all_of_them_are_in_files(
    loop: Loop, tmp_path: Path
) -> None:
    loop.lost = {3, 50, 99}
    assert read_all(loop)
    assert len(loop.asked) == 2 * COUNT, "read once more"
    check_numbers(tmp_path / "kept", DATA, COUNT)


def test_a_store_that_is_too_small_ends_the_walk_and_loses_nothing(tmp_path: Path) -> None:
    """Labels that are in memory alone are not labelled: another rank has driven nothing out for them."""
    recipe = Recipe(
        fingerprint=Fingerprint(model="tests.models:identify", version="1", codec=parse_spec("dense")),
        data=DATA,
    )
    with LabelStore(tmp_path / "kept") as before:
        specs = [TensorSpec(name="logits", dtype="uint8", shape=[4, 250_000])]
        keys = keys_of_ids("other", range(4))
        before.shelf(recipe).put(keys, specs, [bytes(1_000_000)], keys)
    for read in (walk, read_all):
        with LabelStore(tmp_path / "kept", disk_bytes=1 << 20, evicts=False) as store:
            loop = Loop(Reader(), store.shelf(recipe))
            with pytest.raises(StoreError, match=r"may have 1,048,576 bytes of files \(store\.disk\)"):
                read(loop)
            assert len(loop.asked) < COUNT, "labels that nobody keeps are asked for in vain"
            assert store.shelf(recipe).holds(keys).all()
