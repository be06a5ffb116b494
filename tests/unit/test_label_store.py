"""Labels that are kept come back, of their own samples, from memory and from files."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from edldist import LabelStore
from edldist.errors import StoreError
from edldist.student.service.kept.store_use import StoreUse
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


def test_a_store_that_nobody_closes_has_kept_its_labels(tmp_path):
    """As of a script that ends: what is done for a store that is forgotten is done at exit, too."""
    labels = Labels(0, 10)
    store = LabelStore(tmp_path)
    labels.put(store.shelf(recipe()))
    assert store._finalizer.atexit
    del store
    gc.collect()
    with LabelStore(tmp_path) as later:
        assert labels.are_found(later.shelf(recipe()))


def test_a_store_that_is_closed_by_its_own_thread_waits_for_nobody_and_loses_nothing(tmp_path):
    """Garbage is collected in any thread: there a forgotten loader may close its store."""
    labels = Labels(0, 10)
    store = LabelStore(tmp_path)
    shelf = store.shelf(recipe())
    closed = threading.Event()

    def close_here() -> list:
        shelf.seal = lambda: []
        labels.put(shelf)
        store.close()
        closed.set()
        return []

    thread = store._keeper._thread
    shelf.seal, store._keeper._seal_at = close_here, 0.0
    assert closed.wait(30)
    thread.join(30)
    assert not thread.is_alive()
    with LabelStore(tmp_path) as later:
        assert labels.are_found(later.shelf(recipe()))


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("moment", ["in memory", "in a file"])
def test_labels_that_are_withdrawn_are_found_by_nobody_and_can_be_put_again(tmp_path, moment, lengths):
    labels, wrong = Labels(0, 100, lengths), Labels(20, 50, lengths)
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        labels.put(shelf)
        assert moment == "in memory" or shelf.flush(60)
        shelf.withdraw(wrong.keys)
        assert shelf.find(wrong.keys) is None
        assert shelf.flush(60) and shelf.find(wrong.keys) is None
        assert Labels(0, 20, lengths).are_found(shelf) and Labels(50, 100, lengths).are_found(shelf)
    with LabelStore(tmp_path) as later:
        shelf = later.shelf(recipe())
        assert shelf.find(wrong.keys) is None and shelf.figures()["stored"] == 70
        assert [audit.damaged for audit in later.verify()] == [{}]
        wrong.put(shelf)
        assert labels.are_found(shelf)
    with LabelStore(tmp_path) as last:
        assert labels.are_found(last.shelf(recipe()))


def test_a_file_of_which_all_is_withdrawn_goes(tmp_path):
    labels = Labels(0, 10)
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        labels.put(shelf)
        assert shelf.flush(60)
        shelf.withdraw(Labels(0, 20).keys)  # some were never there
        assert shelf.flush(60)
        assert shelf.figures()["stored"] == 0
    assert not list(tmp_path.rglob("*.safetensors"))


def test_settings_of_a_model_make_other_labels(tmp_path):
    labels, set_otherwise = Labels(0, 10), recipe(settings='{"kwargs": {"pool": "max"}}')
    with LabelStore(tmp_path) as store:
        labels.put(store.shelf(recipe()))
        assert store.shelf(set_otherwise).find(labels.keys) is None
    (words,) = recipe().differences(set_otherwise)
    assert "settings '' instead of" in words and "pool" in words


def test_what_is_no_store_is_not_merged_as_if_it_were_empty(tmp_path):
    with (
        LabelStore(tmp_path / "all") as store,
        pytest.raises(StoreError, match=r"no store of labels: .*recipes/"),
    ):
        store.merge(tmp_path / "typo")


def test_a_recipe_of_no_labels_is_not_taken_for_the_one_that_is_meant(tmp_path):
    """As of a run with other weights that was stopped before its first label."""
    with LabelStore(tmp_path) as store:
        Labels(0, 10).put(store.shelf(recipe(weights="old")))
        store.shelf(recipe(weights="new"))
    with LabelStore(tmp_path, read_only=True) as store:
        assert len(store.recipes()) == 2
        assert StoreUse(store, only=True).recipe_of("teacher", None, "") == recipe(weights="old")
    with LabelStore(tmp_path) as store:
        Labels(0, 10).put(store.shelf(recipe(weights="new")))
    with (
        LabelStore(tmp_path, read_only=True) as store,
        pytest.raises(StoreError, match=r"2 recipes like that \(of weights .*\), and nobody can tell which"),
    ):
        StoreUse(store, only=True).recipe_of("teacher", None, "")
