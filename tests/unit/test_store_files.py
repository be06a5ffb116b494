"""Files of kept labels: what is damaged, foreign, too much or not ours is noticed, and costs no job."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from edldist import LabelStore
from edldist.checkpoint.manifest import DamagedError
from edldist.errors import ConfigError, StoreError
from edldist.store import keeper
from edldist.store.folder import ShelfFolder
from edldist.store.room import StoredFile, to_go
from edldist.store.shard import Shard
from edldist.store.shard_draft import ShardDraft
from edldist.wire.messages import TensorSpec
from tests.unit.kept_labels import Labels, recipe
from tests.unit.stored_files import kept_rows, recipe_folder, written_files


@given(
    samples=st.integers(1, 12),
    lengths=st.booleans(),
    witness=st.booleans(),
    width=st.sampled_from([1, 9, 4096, 300_000]),
    picked=st.lists(st.integers(0, 39), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_a_file_gives_back_what_was_put_into_it(tmp_path_factory, samples, lengths, witness, width, picked):
    kept = kept_rows(Labels(0, samples, lengths, wide=width, narrow=3), witness)
    draft = ShardDraft(kept, "ab")
    path = tmp_path_factory.mktemp("shard") / draft.name
    with path.open("wb") as stream:
        entry = draft.write(stream)
    assert path.stat().st_size == draft.nbytes == entry.bytes
    shard = Shard.at(path, "ab")
    assert np.array_equal(shard.keys(), kept.keys)
    some = np.array([at % samples for at in picked])
    found = shard.checked(some).take(some)
    wanted = kept.take(some)
    assert found.layout == wanted.layout
    for mine, its in zip(found.tables, wanted.tables, strict=True):
        assert np.array_equal(mine, its)
    if witness:
        assert np.array_equal(found.witness, wanted.witness)
    assert shard.entry(entry.written_unix_s) == entry


def test_every_flipped_bit_of_a_file_is_found(tmp_path):
    kept = kept_rows(Labels(0, 30, True, wide=9000, narrow=3), witness=True)
    draft = ShardDraft(kept, "ab")
    path = tmp_path / draft.name
    with path.open("wb") as stream:
        draft.write(stream)
    whole = path.read_bytes()
    assert len(whole) > 2 * 256 * 1024, "several blocks"
    for at in np.random.default_rng(0).permutation(len(whole))[:150].tolist() + list(range(40)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        with pytest.raises(DamagedError):
            Shard.at(path, "ab").checked()
    for size in (0, 7, 8, 100, 5000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedError):
            Shard.at(path, "ab").checked()
    path.write_bytes(whole + b"x")
    with pytest.raises(DamagedError):
        Shard.at(path, "ab").checked()
    path.write_bytes(whole)
    with pytest.raises(DamagedError, match="labels of the recipe ab, not cd"):
        Shard.at(path, "cd")
    Shard.at(path, "ab").checked()


@pytest.mark.parametrize("where", ["header", "keys", "labels", "cut off", "empty"])
def test_a_damaged_file_is_counted_left_out_and_its_labels_are_made_anew(tmp_path, caplog, where):
    damaged, sound = Labels(0, 40, logits=5000), Labels(40, 80, logits=5000)
    path, _ = written_files(tmp_path, damaged, sound)
    data = bytearray(path.read_bytes())
    at = {"header": 30, "keys": 9 + int.from_bytes(data[:8], "little"), "labels": len(data) - 5}.get(where)
    if at is not None:
        data[at] ^= 4
    path.write_bytes(data[: {"cut off": len(data) // 2, "empty": 0}.get(where)])
    with LabelStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        shelf = store.shelf(recipe())
        found = shelf.find(damaged.keys)
        assert found is None, "labels of a damaged file"
        assert sound.are_found(shelf)
        assert shelf.figures()["damaged"] == 1
        assert "computed anew" in caplog.text and path.name in caplog.text
        damaged.put(shelf)
        assert damaged.are_found(shelf) and shelf.flush(60)
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        assert damaged.are_found(shelf) and sound.are_found(shelf)
        assert shelf.figures()["damaged"] == 0
        assert [audit.damaged for audit in store.verify()] == [{}]


def test_a_list_that_says_otherwise_than_its_files_is_found_when_all_is_verified(tmp_path):
    first, second = written_files(tmp_path, Labels(0, 10), Labels(10, 30))
    index = recipe_folder(tmp_path) / "index.json"
    listed = json.loads(index.read_text())
    (entry,) = [each for each in listed["shards"] if each["file"] == first.name]
    entry["samples"] = 11
    index.write_text(json.dumps(listed))
    second.unlink()
    with LabelStore(tmp_path, read_only=True) as store:
        (audit,) = store.verify()
    assert audit.files == 0 and audit.damaged.keys() == {first.name, second.name}
    assert "the list says otherwise" in audit.damaged[first.name]
    assert "not there" in audit.damaged[second.name]


def test_only_what_is_used_of_a_file_is_compared(tmp_path):
    """A first batch that hits a file of 64 MiB does not wait until all of it was read."""
    labels = Labels(0, 40, logits=50_000)
    (path,) = written_files(tmp_path, labels)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        assert shelf.find(labels.keys[:10]).hits == 10
        (audit,) = store.verify()
        assert "was changed" in audit.damaged[path.name]
        assert shelf.find(labels.keys[-1:]) is None


def test_foreign_files_are_left_alone(tmp_path):
    labels = Labels(0, 10)
    (path,) = written_files(tmp_path, labels)
    foreign = [path.with_name(name) for name in ("notes.txt", "x.safetensors", "index-old.json", ".hidden")]
    foreign.append(tmp_path / "recipes" / "README")
    for each in foreign:
        each.write_text("mine")
    posing = path.with_name("0" * 32 + ".safetensors")
    posing.write_bytes(path.read_bytes())
    with LabelStore(tmp_path) as store:
        assert store.recipes() == [recipe()]
        assert labels.are_found(store.shelf(recipe()))
    assert [each.read_text() for each in foreign] == ["mine"] * 5
    assert posing.exists()


def test_a_list_of_another_revision_is_refused_and_changed_by_nobody(tmp_path):
    (path,) = written_files(tmp_path, Labels(0, 10))
    index = path.with_name("index.json")
    text = json.dumps({**json.loads(index.read_text()), "format": 2})
    index.write_text(text)
    with LabelStore(tmp_path) as store, pytest.raises(StoreError, match="format 2, of another revision"):
        store.shelf(recipe())
    assert index.read_text() == text


@pytest.mark.parametrize(
    "text", [b"", b"{", b'{"format": 1}', b"\xff\xfe", b'{"format": 1, "recipe": 3, "shards": []}']
)
def test_a_damaged_list_is_made_anew_from_the_files(tmp_path, text, caplog):
    labels = Labels(0, 10)
    (path,) = written_files(tmp_path, labels)
    path.with_name("index.json").write_bytes(text)
    with LabelStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        assert labels.are_found(store.shelf(recipe()))
    assert "index.json cannot be read" in caplog.text
    assert [shard["file"] for shard in json.loads(path.with_name("index.json").read_text())["shards"]] == [
        path.name
    ]


@pytest.mark.parametrize("file", ["../../../etc/passwd", "x.safetensors", "/etc/passwd"])
def test_a_list_names_nothing_but_files_of_labels(tmp_path, file):
    (path,) = written_files(tmp_path, Labels(0, 10))
    index = path.with_name("index.json")
    listed = json.loads(index.read_text())
    listed["shards"][0]["file"] = file
    index.write_text(json.dumps(listed))
    with LabelStore(tmp_path) as store:
        store.shelf(recipe())
    assert [shard["file"] for shard in json.loads(index.read_text())["shards"]] == [path.name]


def test_a_folder_that_was_moved_to_another_recipe_is_refused_in_words(tmp_path):
    written_files(tmp_path, Labels(0, 10))
    recipe_folder(tmp_path).rename(tmp_path / "recipes" / recipe(weights="decaf").digest)
    with LabelStore(tmp_path) as store, pytest.raises(StoreError, match="weights decaf instead of c0ffee"):
        store.shelf(recipe(weights="decaf"))


def test_the_disk_is_bounded_over_all_recipes_and_the_least_recently_used_files_go(tmp_path):
    old, used, new = Labels(0, 100, logits=3000), Labels(100, 200, logits=3000), Labels(200, 300, logits=3000)
    with LabelStore(tmp_path, disk_bytes=1 << 20) as store:
        former = store.shelf(recipe(weights="former"))
        for labels in (old, used):
            labels.put(former)
            assert former.flush(60)
        paths = sorted(
            former.files.place.path.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns
        )
        for age, path in enumerate(reversed(paths)):
            os.utime(path, (1_000_000 - age, 1_000_000 - age))
        assert used.are_found(former)
        shelf = store.shelf(recipe())
        for labels in (new, Labels(300, 400, logits=3000), Labels(400, 500, logits=3000)):
            labels.put(shelf)
            assert shelf.flush(60)
        files_ = list(tmp_path.rglob("*.safetensors"))
        assert sum(path.stat().st_size for path in files_) <= 1 << 20
        assert new.are_found(shelf)
    with LabelStore(tmp_path, read_only=True) as store:
        assert new.are_found(store.shelf(recipe()))
        assert store.shelf(recipe(weights="former")).find(old.keys) is None
        assert [audit.damaged for audit in store.verify()] == [{}, {}]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 50)), max_size=12),
    st.integers(0, 60),
    st.integers(60, 300),
)
def test_as_few_files_go_as_make_room(files_, more, most):
    there = [StoredFile(float(used), Path(str(at)), size) for at, (used, size) in enumerate(files_)]
    going = to_go(there, more, most)
    stay = [file for file in there if file not in going]
    assert sum(file.nbytes for file in stay) + more <= most
    if going:
        assert sum(file.nbytes for file in [*stay, going[-1]]) + more > most
        assert all(file.used <= kept.used for file in going for kept in stay)


def test_a_full_disk_is_said_once_counted_and_tried_again(tmp_path, monkeypatch, caplog):
    full = True
    write = ShardDraft.write

    def fill_up(draft, stream):
        if full:
            stream.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(draft, stream)

    monkeypatch.setattr(ShardDraft, "write", fill_up)
    monkeypatch.setattr(keeper, "RETRY_S", 0.0)
    first, later = Labels(0, 20), Labels(20, 40)
    with LabelStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        shelf = store.shelf(recipe())
        for labels in (first, Labels(50, 60)):
            labels.put(shelf)
            assert not shelf.flush(60)
        assert first.are_found(shelf), "they are in memory all the same"
        assert "No space left" in shelf.trouble
        assert shelf.figures()["dropped"] == 30
        full = False
        later.put(shelf)
        assert shelf.flush(60)
        assert not shelf.trouble
    assert len([line for line in caplog.records if "does not take labels" in line.message]) == 1
    assert not [name for name in os.listdir(recipe_folder(tmp_path)) if name.endswith(".new")]
    with LabelStore(tmp_path) as store:
        assert later.are_found(store.shelf(recipe()))


def test_who_waits_for_the_disk_drops_nothing(tmp_path):
    labels = [Labels(first, first + 20, logits=9000) for first in range(0, 400, 20)]
    with LabelStore(tmp_path, memory_bytes=1 << 20) as store:
        shelf = store.shelf(recipe())
        assert [each.put(shelf, wait=True) for each in labels] == [0] * 20
        with pytest.raises(StoreError, match="one is larger than the memory"):
            Labels(1000, 1001, logits=2 << 20).put(shelf, wait=True)
        assert shelf.flush(60)
        assert shelf.figures()["memory_bytes"] <= 1 << 20 < shelf.figures()["disk_bytes"]
        assert all(each.are_found(shelf) for each in labels)


def test_a_place_that_cannot_be_written_to_costs_the_job_nothing(tmp_path, caplog):
    """A file where a folder should be: this holds for root too, as permissions do not."""
    (tmp_path / "recipes").write_text("mine")
    labels = Labels(0, 10)
    with caplog.at_level(logging.WARNING), LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        labels.put(shelf)
        assert labels.are_found(shelf) and not shelf.flush(60)
    assert "goes on without it" in caplog.text


def test_labels_on_a_disk_that_takes_none_are_found_and_new_ones_kept_once_it_does(
    tmp_path, monkeypatch, caplog
):
    """Its folder is another user's, or its file system is mounted read-only or full."""
    there, first, later = Labels(0, 20), Labels(20, 40), Labels(40, 60)
    written_files(tmp_path, there)
    before = sorted(os.listdir(recipe_folder(tmp_path)))

    def refuse(_: ShelfFolder) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(keeper, "RETRY_S", 0.0)
    with LabelStore(tmp_path) as store, caplog.at_level(logging.WARNING):
        with monkeypatch.context() as read_only:
            read_only.setattr(ShelfFolder, "_locked", refuse)
            shelf = store.shelf(recipe())
            assert there.are_found(shelf), "to read is all that it takes"
            first.put(shelf)
            assert not shelf.flush(60) and "Read-only" in shelf.trouble
            assert first.are_found(shelf), "it is in memory all the same"
            assert shelf.figures()["dropped"] == 20, "which is no file"
            assert sorted(os.listdir(recipe_folder(tmp_path))) == before
        later.put(shelf)
        assert shelf.flush(60) and not shelf.trouble
    assert len([line for line in caplog.records if "does not take labels" in line.message]) == 1
    with LabelStore(tmp_path) as store:
        assert later.are_found(store.shelf(recipe())) and there.are_found(store.shelf(recipe()))


def test_a_folder_that_cannot_be_written_to_is_read_by_nobody_but_its_own_recipe(tmp_path, monkeypatch):
    written_files(tmp_path, Labels(0, 10))
    os.rename(recipe_folder(tmp_path), tmp_path / "recipes" / recipe(weights="x").digest)

    def refuse(_: ShelfFolder) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(ShelfFolder, "_locked", refuse)
    with LabelStore(tmp_path) as store, pytest.raises(StoreError, match="holds labels of another teacher"):
        store.shelf(recipe(weights="x"))


def test_a_store_that_was_opened_read_only_changes_nothing(tmp_path):
    labels = Labels(0, 10)
    with LabelStore(tmp_path / "none", read_only=True) as store:
        assert store.shelf(recipe()).find(labels.keys) is None
    assert not (tmp_path / "none").exists()
    (path,) = written_files(tmp_path, labels)
    path.write_bytes(path.read_bytes()[:-1])
    before = {each: each.stat().st_mtime_ns for each in path.parent.iterdir()}
    with LabelStore(tmp_path, read_only=True) as store:
        shelf = store.shelf(recipe())
        assert shelf.find(labels.keys) is None
        labels.put(shelf)
        assert labels.are_found(shelf)
        assert not shelf.flush(60) and "read-only" in shelf.trouble
    assert {each: each.stat().st_mtime_ns for each in path.parent.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"memory_bytes": 1000}, "memory of 1,000 bytes"),
        ({"disk_bytes": 1000}, "a disk of 1,000 bytes"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(tmp_path, options, words):
    with pytest.raises(StoreError, match=words):
        LabelStore(tmp_path, **options)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="is a file"):
        LabelStore(tmp_path / "file")
    with pytest.raises(ConfigError, match="nosuch"):
        LabelStore("nosuch://bucket").shelf(recipe())
    with LabelStore(tmp_path / "new") as store, pytest.raises(StoreError, match="There are: none"):
        store.open()


@pytest.mark.parametrize("change", ["keys", "frame", "dtype", "lengths", "witness", "twice"])
def test_what_are_no_labels_of_these_samples_is_refused(change):
    with LabelStore(None) as store:
        labels = Labels(0, 4)
        keys, specs, frames, options = labels.keys, list(labels.specs), list(labels.frames), {}
        if change == "keys":
            keys = keys[:, :8]
        elif change == "frame":
            frames[1] = frames[1][:-1]
        elif change == "dtype":
            specs[0] = TensorSpec(name="ids", dtype="complex64", shape=[4, 1])
        elif change == "lengths":
            options["lengths"] = [1, 2, 0, 1]
        elif change == "witness":
            options["witness"] = labels.keys
        else:
            specs[1] = specs[0]
        with pytest.raises(StoreError):
            store.shelf(recipe()).put(keys, specs, frames, **options)
        assert labels.put(store.shelf(recipe())) == 0


def test_scripts_read_the_labels_as_a_loop_would_get_them(tmp_path):
    import torch

    from edldist.labels.codec import make_codec

    made_by = recipe(codec="dense:bf16")
    logits = torch.randn(6, 5)
    packed = make_codec(made_by.fingerprint.codec).encode({"logits": logits})
    ((name, tensor),) = packed.items()
    specs = [TensorSpec(name=name, dtype="bfloat16", shape=[6, 5])]
    keys = Labels(0, 6).keys
    with LabelStore(tmp_path) as store:
        store.shelf(made_by).put(keys, specs, [tensor.view(torch.uint8).numpy().tobytes()])
        (in_memory,) = store.open()
        assert store.open().flush(60)
    with LabelStore(tmp_path) as store:
        for batch in (in_memory, *store.open()):
            assert np.array_equal(batch.keys, keys)
            assert torch.equal(batch.labels()["logits"].float(), logits.bfloat16().float())


def test_other_tools_read_the_files_as_the_documents_say(tmp_path):
    labels = Labels(0, 7, True)
    (path,) = written_files(tmp_path, labels)
    index = json.loads(path.with_name("index.json").read_text())
    (shard,) = index["shards"]
    tensors = load_file(path.with_name(shard["file"]))
    assert shard["samples"] == len(tensors["keys"]) == 7
    assert tensors["lengths"].tolist() == labels.lengths
    assert np.array_equal(tensors["labels.values"], labels.tables["values"])
