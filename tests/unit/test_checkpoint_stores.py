"""What every store promises: directories, and object stores through fsspec."""

import os
import uuid

import fsspec
import pytest
import torch
from torch import nn

from edldist.errors import CheckpointError, ConfigError
from edldist.observe import reporter
from edldist.student import lock
from edldist.student.checkpoint import Checkpointer
from edldist.student.objectstore import FsspecStore
from edldist.student.store import LocalStore, open_store


@pytest.fixture(autouse=True)
def events(monkeypatch):
    monkeypatch.setattr(reporter, "event", lambda name, **fields: None)
    monkeypatch.delenv("EDLDIST_JOB", raising=False)


@pytest.fixture(params=["local", "fsspec-file", "fsspec-memory"])
def store(request, tmp_path):
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    if request.param == "fsspec-file":
        return FsspecStore(f"file://{tmp_path}/store")
    return FsspecStore(f"memory://{uuid.uuid4().hex}")


def draft_of(store, step, content=b"data"):
    draft = store.begin(step)
    (store.folder(draft) / "file").write_bytes(content)
    store.seal(draft, ["file"])
    return draft


def read(store, name, file):
    with store.open(name, file) as stream:
        return stream.read()


def test_a_commit_publishes_and_a_draft_is_never_read_as_one(store):
    store.prepare()
    assert store.checkpoints() == []
    draft = draft_of(store, 3)
    assert store.size(draft, "file") == 4
    for _, name in store.checkpoints():
        with pytest.raises(FileNotFoundError):
            store.open(name, "COMMITTED")
    name = store.commit(draft, b"mark")
    store.forget(draft)
    other = store.commit(draft_of(store, 12), b"mark")
    assert store.checkpoints() == [(12, other), (3, name)]
    assert read(store, name, "file") == b"data" and read(store, name, "COMMITTED") == b"mark"
    with store.fetch(name, {}) as folder:
        assert folder.is_dir()
    store.delete(other)
    assert store.checkpoints() == [(3, name)]
    store.release()


def test_a_step_saved_again_comes_first(store):
    store.prepare()
    store.commit(draft_of(store, 3, b"old"), b"1")
    store.commit(draft_of(store, 3, b"new"), b"2")
    assert read(store, store.checkpoints()[0][1], "file") == b"new"
    store.release()


def test_a_discarded_draft_leaves_nothing(store):
    store.prepare()
    store.discard(draft_of(store, 3))
    assert store.checkpoints() == []
    store.discard("step-00000099.partial-00")
    store.release()


def test_the_whole_path_over_fsspec(tmp_path):
    url = f"memory://{uuid.uuid4().hex}/checkpoints"
    fs = fsspec.filesystem("memory")
    model = nn.Linear(3, 3)
    with Checkpointer(url, keep=2) as checkpointer:
        assert checkpointer.restore({"model": model}) is None
        for step in (1, 2, 3):
            with torch.no_grad():
                model.weight.fill_(step)
            checkpointer.save(step, {"model": model}, wait=True)
        assert checkpointer.failures == 0
        one, two = sorted(fs.ls(url, detail=False))
        assert "step-00000002-" in one and "step-00000003-" in two
        tensors = f"{two}/tensors.safetensors"
        data = bytearray(fs.cat_file(tensors))
        data[len(data) // 2] ^= 1
        fs.pipe_file(tensors, bytes(data))
    # An upload that died leaves objects without a marker; the next save clears them away.
    fs.pipe_file(f"{url}/step-00000009-{0:024x}/state.json", b"{}")
    with Checkpointer(url) as checkpointer:
        assert checkpointer.restore({"model": model}) == 2
        assert torch.equal(model.weight, torch.full((3, 3), 2.0))
        checkpointer.save(3, {"model": model}, wait=True)
        assert len(fs.ls(url, detail=False)) == 2
        assert checkpointer.restore({"model": model}) == 3


def test_a_job_that_died_in_its_very_first_upload_starts_from_the_beginning():
    url = f"memory://{uuid.uuid4().hex}/checkpoints"
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{url}/step-00000001-{0:024x}/state.json", b"{}")
    fs.pipe_file(f"{url}/step-00000001-{0:024x}/manifest.json", b"{}")
    model = nn.Linear(3, 3)
    with Checkpointer(url) as checkpointer:
        assert checkpointer.restore({"model": model}) is None
        checkpointer.save(1, {"model": model}, wait=True)
        assert len(fs.ls(url, detail=False)) == 1
        assert checkpointer.restore({"model": model}) == 1


def test_a_full_temporary_directory_fails_the_save_on_every_rank_alike(monkeypatch):
    model = nn.Linear(3, 3)
    with Checkpointer(f"memory://{uuid.uuid4().hex}") as checkpointer:
        agreed = []
        each = checkpointer._start().each

        def told(work):
            try:
                return each(work)
            except CheckpointError as exc:
                agreed.append(str(exc))
                raise

        def full(draft):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(checkpointer._ranks, "each", told)
        monkeypatch.setattr(checkpointer._store, "folder", full)
        checkpointer.save(1, {"model": model}, wait=True)
        assert checkpointer.failures == 1
        # Outside of what the ranks agree on, the others would wait for this one.
        assert ["No space left" in text for text in agreed] == [True]


def test_a_directory_that_could_not_be_put_in_order_is_let_go(tmp_path, monkeypatch):
    (tmp_path / "step-00000002.replaced-aa").mkdir()
    monkeypatch.setattr(lock, "HANDOVER_S", 0.0)

    def fail(*args):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(CheckpointError, match="Input/output"):
        patch.setattr(os, "rename", fail)
        Checkpointer(tmp_path)
    Checkpointer(tmp_path).close()


def test_an_upload_that_changes_in_flight_is_not_loaded(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    model = nn.Linear(3, 3)
    with Checkpointer(url) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)
        fs = type(fsspec.filesystem("memory"))
        get_file = fs.get_file

        def garble(self, remote, local, **kwargs):
            get_file(self, remote, local, **kwargs)
            with open(local, "ab") as stream:
                stream.write(b"x")

        monkeypatch.setattr(fs, "get_file", garble)
        with pytest.raises(CheckpointError, match="changed on its way"):
            checkpointer.restore({"model": model})


def test_urls_choose_their_store(tmp_path):
    assert isinstance(open_store(tmp_path), LocalStore)
    assert open_store(f"file://{tmp_path}/x").url == f"{tmp_path}/x"
    with pytest.raises(ConfigError, match="nosuch://bucket"):
        open_store("nosuch://bucket/x")


def test_leftovers_of_an_interrupted_replacement_are_settled(tmp_path):
    for name in (
        "step-00000001",
        "step-00000002.replaced-aa",
        "step-00000001.replaced-bb",
        "step-3.partial-cc",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000004.partial-dd").mkdir()
    (tmp_path / "notes.txt").write_text("not ours")
    store = LocalStore(tmp_path)
    store.prepare()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        ".lock",
        "notes.txt",
        "step-00000001",
        "step-00000002",
        "step-3.partial-cc",  # no name of ours
    ]
    store.release()
