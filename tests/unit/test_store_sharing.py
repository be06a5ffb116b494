"""Folders of kept labels that several processes and runs write to: small files, drafts, lists, buckets."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist import LabelStore, files
from edldist.errors import StoreError
from edldist.store import folder
from edldist.store.shard_draft import ShardDraft
from edldist.store.small_files import TOGETHER, SmallFiles
from tests.unit.kept_labels import Labels, recipe
from tests.unit.stored_files import recipe_folder, shards_of, written_files


def test_two_processes_find_what_the_other_has_written(tmp_path):
    mine, its = Labels(0, 10), Labels(10, 20)
    with LabelStore(tmp_path) as one, LabelStore(tmp_path) as other:
        one.shelf(recipe())
        other.shelf(recipe())
        mine.put(one.shelf(recipe()))
        its.put(other.shelf(recipe()))
        assert one.shelf(recipe()).flush(60) and other.shelf(recipe()).flush(60)
        for store in (one, other):
            store.shelf(recipe()).files.refresh()
            assert mine.are_found(store.shelf(recipe())) and its.are_found(store.shelf(recipe()))
    assert len(json.loads((recipe_folder(tmp_path) / "index.json").read_text())["shards"]) == 2


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks, as Lustre is without ``flock``."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(files, "_said", set())
    monkeypatch.setattr(files.fcntl, "flock", refuse)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_two_ranks_may_begin_at_the_same_time(tmp_path, monkeypatch):
    """The second one writes the recipe between the first one's writing it and its putting it in place."""
    replace = os.replace
    mine, its = Labels(0, 10), Labels(10, 20)
    with LabelStore(tmp_path) as one, LabelStore(tmp_path) as other:

        def meanwhile(source, target) -> None:
            monkeypatch.setattr(os, "replace", replace)
            its.put(other.shelf(recipe()))
            replace(source, target)

        monkeypatch.setattr(os, "replace", meanwhile)
        mine.put(one.shelf(recipe()))
        assert os.replace is replace, "nobody came between"
        assert one.shelf(recipe()).flush(60) and other.shelf(recipe()).flush(60)
    with LabelStore(tmp_path, read_only=True) as store:
        assert mine.are_found(store.shelf(recipe())) and its.are_found(store.shelf(recipe()))
    assert not [name for name in os.listdir(recipe_folder(tmp_path)) if name.endswith(".new")]


@pytest.mark.usefixtures("no_locks")
def test_without_locks_each_writer_keeps_a_list_of_its_own(tmp_path):
    mine, its = Labels(0, 10), Labels(10, 20)
    with LabelStore(tmp_path) as one, LabelStore(tmp_path) as other:
        mine.put(one.shelf(recipe()))
        its.put(other.shelf(recipe()))
        assert one.shelf(recipe()).flush(60) and other.shelf(recipe()).flush(60)
    assert len(list(recipe_folder(tmp_path).glob("index-*.json"))) == 2
    with LabelStore(tmp_path, read_only=True) as store:
        assert mine.are_found(store.shelf(recipe())) and its.are_found(store.shelf(recipe()))


def test_stores_of_two_clusters_become_one(tmp_path):
    first, both, second = Labels(0, 30, True), Labels(30, 60, True), Labels(60, 90, True)
    written_files(tmp_path / "a", first, both)
    damaged, *_ = written_files(tmp_path / "b", Labels(200, 210, True), both, second)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with LabelStore(tmp_path / "all") as store:
        assert store.merge(tmp_path / "a", tmp_path / "b") == 90
        assert store.merge(tmp_path / "a") == 0
    with LabelStore(tmp_path / "all", read_only=True) as store:
        shelf = store.open(recipe().digest[:6])
        assert all(labels.are_found(shelf) for labels in (first, both, second))
        assert sum(len(batch.keys) for batch in shelf) == 90


def test_a_merge_whose_labels_the_disk_does_not_take_is_no_merge(tmp_path, monkeypatch):
    written_files(tmp_path / "a", Labels(0, 30))

    def fill_up(draft, stream):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardDraft, "write", fill_up)
    with (
        LabelStore(tmp_path / "all") as store,
        pytest.raises(StoreError, match="were not all kept: .*No space left"),
    ):
        store.merge(tmp_path / "a")


@given(sizes=st.lists(st.tuples(st.integers(1, 120), st.sampled_from("ab")), max_size=200))
def test_small_files_become_one_of_their_kind_that_is_no_larger_than_a_file(sizes):
    small, kinds, gone = SmallFiles(200), {}, set()
    for at, (size, kind) in enumerate(sizes):
        names = small.add(str(at), size, kind)
        kinds[str(at)] = (kind, size)
        assert gone.isdisjoint(names) and len(names) != 1
        assert {kinds[name][0] for name in names} <= {kind}
        assert sum(kinds[name][1] for name in names) < 200
        gone.update(names)
    for kind in "ab":
        left = [
            size for name, (its, size) in kinds.items() if its == kind and size < 100 and name not in gone
        ]
        assert len(left) < TOGETHER and sum(left) < 100


@pytest.mark.parametrize("lengths", [False, True])
def test_many_flushes_leave_few_files_with_every_sample_once(tmp_path, lengths):
    labels = [Labels(first, first + 5, lengths) for first in range(0, 500, 5)]
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        for each in labels:
            each.put(shelf)
            assert shelf.flush(60)
        assert all(each.are_found(shelf) for each in labels)
    assert 2 <= len(shards_of(tmp_path)) < 2 * TOGETHER
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        assert all(each.are_found(shelf) for each in labels)
        assert sum(len(batch.keys) for batch in shelf) == 500
        (audit,) = store.verify()
        assert (audit.samples, audit.damaged) == (500, {})


def test_small_files_that_are_damaged_or_gone_are_left_out_of_the_one_that_they_become(tmp_path):
    labels = [Labels(first, first + 5, logits=100) for first in range(0, 5 * TOGETHER, 5)]
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        for each in labels[:-1]:
            each.put(shelf)
            assert shelf.flush(60)
        damaged, gone, *_ = sorted(shards_of(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        data = bytearray(damaged.read_bytes())
        data[-1] ^= 1
        with damaged.open("rb+") as stream:  # in place: it is mapped
            stream.write(data)
        shelf.files.place.remove([gone.name])
        labels[-1].put(shelf)
        assert shelf.flush(60)
        assert [each.are_found(shelf) for each in labels].count(False) <= 2
        assert all(each.are_found(shelf) for each in labels[2:])
    assert len(shards_of(tmp_path)) <= 2
    with LabelStore(tmp_path) as store:
        assert [audit.damaged for audit in store.verify()] == [{}]


def test_drafts_of_writers_that_died_are_removed_and_those_of_living_ones_are_not(tmp_path):
    (path,) = written_files(tmp_path, Labels(0, 10))
    dead, alive = path.with_name(f".{'a' * 16}.new"), path.with_name(f".{'b' * 16}.new")
    for draft in (dead, alive):
        draft.write_bytes(b"half")
        os.utime(draft, (1, 1))
    with alive.open("rb+") as stream:
        assert files.lock_file(stream.fileno(), alive)
        with LabelStore(tmp_path) as store:
            store.shelf(recipe())
        assert alive.exists() and not dead.exists()


def test_a_file_that_its_writer_could_not_list_is_listed_by_the_next(tmp_path):
    first, second = Labels(0, 10), Labels(10, 20)
    written_files(tmp_path, first, second)
    index = recipe_folder(tmp_path) / "index.json"
    listed = json.loads(index.read_text())
    index.write_text(json.dumps({**listed, "shards": listed["shards"][:1]}))
    with LabelStore(tmp_path) as store:
        assert first.are_found(store.shelf(recipe())) and second.are_found(store.shelf(recipe()))
    again = json.loads(index.read_text())["shards"]
    assert [shard["blake2b"] for shard in again] == [shard["blake2b"] for shard in listed["shards"]]


def test_an_object_store_is_shared_by_runs_and_copied_when_used(tmp_path):
    url = f"memory://{tmp_path.name}/labels"
    first, second = Labels(0, 40, True, logits=3000), Labels(40, 80, True, logits=3000)
    with LabelStore(url) as one, LabelStore(url) as other:
        first.put(one.shelf(recipe()))
        second.put(other.shelf(recipe()))
        assert one.shelf(recipe()).flush(60) and other.shelf(recipe()).flush(60)
    with LabelStore(url, disk_bytes=1 << 20) as store:
        assert store.recipes() == [recipe()]
        shelf = store.shelf(recipe())
        for labels in (first, second, first):
            assert labels.are_found(shelf)
        assert [(audit.samples, audit.damaged) for audit in store.verify()] == [(80, {})]
        place = shelf.files.place
        victim = next(iter(place.entries()))
        data = place._fs.cat_file(place._path(victim))
        place._fs.pipe_file(place._path(victim), data[:-1] + bytes([data[-1] ^ 1]))
    with LabelStore(url) as store:
        shelf = store.shelf(recipe())
        hits = [labels.are_found(shelf) for labels in (first, second)]
        assert sorted(hits) == [False, True]
        assert shelf.figures()["damaged"] == 1


def test_an_object_that_its_writer_could_not_list_is_listed_by_the_next(tmp_path):
    url = f"memory://{tmp_path.name}/labels"
    labels = Labels(0, 10)
    with LabelStore(url) as store:
        labels.put(store.shelf(recipe()))
        assert store.shelf(recipe()).flush(60)
        place = store.shelf(recipe()).files.place
        place._fs.rm_file(place._path(place._index))
    with LabelStore(url, read_only=True) as store:
        assert store.shelf(recipe()).find(labels.keys) is None, "who reads lists nothing"
    with LabelStore(url) as store:
        assert labels.are_found(store.shelf(recipe()))
    with LabelStore(url, read_only=True) as store:
        assert labels.are_found(store.shelf(recipe()))


def test_a_file_is_on_the_disk_before_it_has_its_name_and_that_before_the_list_names_it(
    tmp_path, monkeypatch
):
    """A machine that loses its power has a list of whole files, however late its disk writes."""
    done = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(descriptor):
        done.append(f"sync {kind(os.readlink(f'/proc/self/fd/{descriptor}'))}")
        fsync(descriptor)

    def named(source, target):
        done.append(f"name {kind(os.fspath(target))}")
        (rename if os.fspath(target).endswith("safetensors") else replace)(source, target)

    def kind(path):
        if os.path.isdir(path):
            return "folder"
        return "list" if "index" in path else "file"

    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        Labels(0, 10).put(shelf)
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", named)
        monkeypatch.setattr(os, "replace", named)
        assert shelf.flush(60)
        monkeypatch.undo()
    order = ["sync file", "name file", "sync folder", "sync list", "name list", "sync folder"]
    assert [each for each, before in zip(done, [None, *done], strict=False) if each != before] == order


def test_another_process_that_holds_the_lock_for_long_costs_labels_not_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LOCK_WAIT_S", 0.0)
    labels = Labels(0, 10)
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        with (recipe_folder(tmp_path) / ".lock").open("rb+") as stream:
            assert files.lock_file(stream.fileno(), tmp_path)
            labels.put(shelf)
            assert not shelf.flush(60)
        assert "another process has held the lock" in shelf.trouble
        assert labels.are_found(shelf)
