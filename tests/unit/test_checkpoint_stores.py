"""What every store promises: directories, and object stores through fsspec."""

import io
import os
import uuid

import fsspec
import pytest
import torch
from torch import nn

from edldist.checkpoint import lock
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.stores.fsspec import FsspecStore
from edldist.checkpoint.stores.local import LocalStore
from edldist.checkpoint.stores.opening import open_store
from edldist.errors import CheckpointError, ConfigError
from edldist.observe import reporter


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
        one, two = sorted(fs.glob(f"{url}/step-*"))
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
        assert len(fs.glob(f"{url}/step-*")) == 2
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
        assert len(fs.glob(f"{url}/step-*")) == 1
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


class OtherLibrarysError(Exception):
    """What a backend's own library raises need be no OSError."""


PASSING = [
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError("timed out"),
    fsspec.exceptions.FSTimeoutError(),
    OSError(5, "We encountered an internal error"),  # what s3fs makes of any answer it does not know
    PermissionError(13, "the request has expired"),
    OtherLibrarysError("could not connect to the endpoint"),
]


class Interrupted(io.BytesIO):
    """A file whose reading fails half way."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def read(self, size=-1):
        raise self.error


@pytest.mark.parametrize(
    ("file", "error", "late"),
    [
        *(("tensors.safetensors", error, late) for error in PASSING for late in (False, True)),
        ("COMMITTED", PASSING[0], False),
        ("COMMITTED", PASSING[1], True),
        ("manifest.json", PASSING[2], False),
        ("manifest.json", PASSING[3], True),
    ],
)
def test_an_error_of_the_network_is_no_damage(monkeypatch, file, error, late):
    events = []
    monkeypatch.setattr(reporter, "event", lambda name, **fields: events.append(name))
    url = f"memory://{uuid.uuid4().hex}"
    model = nn.Linear(3, 3)
    with Checkpointer(url, keep=2) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"model": model}, wait=True)
        opened = checkpointer._store.open
        events.clear()

        def cut_off(name, wanted):
            if wanted != file or name.startswith("step-00000001"):
                return opened(name, wanted)
            if late:
                return Interrupted(error)
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(checkpointer._store, "open", cut_off)
            with pytest.raises(CheckpointError, match="cannot be read now") as caught:
                checkpointer.restore({"model": model})
        assert not caught.value.final, "a restart may meet a better network"
        assert f"{url}/step-00000002" in str(caught.value) and "try again" in str(caught.value)
        assert str(error) in str(caught.value)
        assert events == []
        # What could not be read is not let go in favour of an older one.
        checkpointer.save(3, {"model": model}, wait=True)
        assert [step for step, _ in checkpointer._store.checkpoints()] == [3, 2]
        assert checkpointer.restore({"model": model}) == 3


def test_a_download_that_breaks_off_is_no_damage_either(monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    model = nn.Linear(3, 3)
    with Checkpointer(url) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)

        def broken_off(*args, **kwargs):
            raise ConnectionResetError(104, "Connection reset by peer")

        for method in ("get_file", "ls"):
            with monkeypatch.context() as patch:
                patch.setattr(type(fsspec.filesystem("memory")), method, broken_off)
                with pytest.raises(CheckpointError, match=f"{url}.* cannot be read now.*reset") as caught:
                    checkpointer.restore({"model": model})
            assert not caught.value.final
        assert checkpointer.restore({"model": model}) == 1


def test_a_network_that_fails_while_a_checkpoint_is_removed_leaves_no_half_of_one(monkeypatch):
    store = FsspecStore(f"memory://{uuid.uuid4().hex}")
    name = store.commit(draft_of(store, 3), b"mark")

    def broken_off(*args, **kwargs):
        raise ConnectionResetError(104, "Connection reset by peer")

    with monkeypatch.context() as patch:
        # A backend's exists() may take any error for a no.
        patch.setattr(type(store._fs), "exists", lambda *args, **kwargs: False)
        patch.setattr(type(store._fs), "rm_file", broken_off)
        with pytest.raises(ConnectionResetError):
            store.delete(name)
    assert read(store, name, "file") == b"data"
    store.delete(name)
    store.delete(name)
    assert store.checkpoints() == []


@pytest.mark.parametrize("number", [5, 20, 21], ids=os.strerror)
def test_a_disk_that_cannot_read_a_file_again_has_lost_it(tmp_path, monkeypatch, number):
    model = nn.Linear(3, 3)
    with Checkpointer(tmp_path) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, {"model": model}, wait=True)
        opened = checkpointer._store.open

        def bad_sector(name, file):
            if (name, file) == ("step-00000002", "tensors.safetensors"):
                raise OSError(number, os.strerror(number))
            return opened(name, file)

        monkeypatch.setattr(checkpointer._store, "open", bad_sector)
        assert checkpointer.restore({"model": model}) == 1


def test_a_shared_file_system_out_of_reach_is_no_damage(tmp_path, monkeypatch):
    model = nn.Linear(3, 3)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)

        def stale(name, file):
            raise OSError(116, "Stale file handle", name)

        monkeypatch.setattr(checkpointer._store, "open", stale)
        with pytest.raises(CheckpointError, match="Stale file handle") as caught:
            checkpointer.restore({"model": model})
        assert not caught.value.final


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
