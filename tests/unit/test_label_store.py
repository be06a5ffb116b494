"""Labels that are kept come back, of their own samples, from memory and from files."""

from __future__ import annotations

import numpy as np
import pytest

from edldist import LabelStore
from edldist.errors import StoreError
from tests.unit.kept_labels import Labels, recipe

MEMORY = 1 << 20


@pytest.mark.parametrize("lengths", [False, True])
def test_labels_are_found_in_memory_once_they_were_put(lengths):
    with LabelStore(None) as store:
        shelf = store.shelf(recipe())
        labels = Labels(0, 100, lengths)
        assert shelf.find(labels.keys) is None
        assert labels.put(shelf) == 0
        assert labels.are_found(shelf)
        assert not Labels(100, 101).are_found(shelf)
        figures = shelf.figures()
        assert (figures["hits"], figures["misses"], figures["put"]) == (100, 101, 100)


@pytest.mark.parametrize("lengths", [False, True])
def test_a_later_process_finds_them_in_files(tmp_path, lengths):
    labels = Labels(0, 500, lengths)
    with LabelStore(tmp_path) as store:
        labels.put(store.shelf(recipe()))
        assert store.shelf(recipe()).flush(60)
    with LabelStore(tmp_path) as store:
        assert store.recipes() == [recipe()]
        shelf = store.shelf(recipe())
        assert labels.are_found(shelf)
        assert shelf.figures()["stored"] == 500


def test_some_of_a_batch_are_hits_in_the_order_of_the_batch():
    with LabelStore(None) as store:
        shelf = store.shelf(recipe())
        Labels(0, 10).put(shelf)
        Labels(20, 30).put(shelf)
        asked = Labels(0, 40)
        order = np.random.default_rng(0).permutation(40)
        found = shelf.find(asked.keys[order])
        there = (order < 10) | ((order >= 20) & (order < 30))
        assert np.array_equal(found.hit, there)
        assert np.array_equal(found.rows("values"), asked.tables["values"][order[there]])


@pytest.mark.parametrize(
    "other", [{"weights": "decaf"}, {"codec": "topk:5"}, {"version": "2"}, {"preprocessing": "crop"}]
)
def test_labels_of_another_recipe_are_no_hits(tmp_path, other):
    labels = Labels(0, 10)
    with LabelStore(tmp_path) as store:
        labels.put(store.shelf(recipe()))
        assert store.shelf(recipe(**other)).find(labels.keys) is None


def test_a_teacher_whose_weights_nobody_can_tell_needs_a_version(tmp_path):
    with LabelStore(tmp_path) as store:
        with pytest.raises(StoreError, match="Name a version"):
            store.shelf(recipe(weights=""))
        store.shelf(recipe(weights="", version="1"))
