"""Which group may write to a checkpoint directory, while the other may live all the same."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from torch import nn

from edldist.checkpoint import checkpointer as module
from edldist.checkpoint import lock
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.claim import GIVE_UP, REGROUP, Claim, SupersededError
from edldist.checkpoint.lock import DirectoryLock
from edldist.checkpoint.manifest import MARKER
from edldist.checkpoint.stores.local import LocalStore
from edldist.errors import CheckpointError
from edldist.lifecycle.group_change import GroupChanged
from edldist.ranks.placement import GENERATION_VARIABLE, term

Become = Callable[[str], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Have this process be a rank of another generation from now on: ``run/number/node``, or none."""
    monkeypatch.setattr(lock, "HANDOVER_S", 0.0)
    return lambda generation: monkeypatch.setenv(GENERATION_VARIABLE, generation)


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[GroupChanged]]:
    changes: list[GroupChanged] = []

    def leave(change: GroupChanged) -> None:
        changes.append(change)  # and the process ends

    monkeypatch.setattr(module, "group_changed", leave)
    yield changes


def test_a_generation_is_named_with_its_run_and_its_number() -> None:
    assert term({GENERATION_VARIABLE: "job/a/7/node"}) == ("job/a", 7)
    for nameless in ("", "job", "job/7", "job/x/node"):
        assert term({GENERATION_VARIABLE: nameless}) == ("", 0)


def test_only_a_later_generation_of_the_same_run_supersedes_another() -> None:
    def claim(run: str, generation: int) -> Claim:
        return Claim("n", 1, "here", run, generation)

    assert claim("run", 4).supersedes(claim("run", 3))
    for other in (claim("run", 4), claim("run", 5), claim("another", 3), claim("", 0)):
        assert not claim("run", 4).supersedes(other)
    assert not claim("", 0).supersedes(claim("", 0))


def test_a_claim_is_read_back_and_anything_else_is_none() -> None:
    claim = Claim("n", 7, "here", "run", 4)
    assert Claim.decode(claim.encode()) == claim and str(claim) == "pid 7 on here"
    for text in (b"", b"pid 7 on here\n", b'{"nonce": 3}', b"[]"):
        assert Claim.decode(text) is None


def test_a_later_generation_takes_the_lock_of_one_that_lives(
    tmp_path: Path, become: Become, caplog: pytest.LogCaptureFixture
) -> None:
    become("run/1/a")
    former = DirectoryLock(tmp_path / ".lock")
    former.acquire()
    former.check()
    become("run/2/b")
    later = DirectoryLock(tmp_path / ".lock")
    with caplog.at_level(logging.WARNING):
        later.acquire()
    assert f"from pid {os.getpid()} on" in caplog.text
    assert "generation 1 of this run was written off" in caplog.text
    later.check()
    with pytest.raises(SupersededError, match="generation 1 of run run was written off") as raised:
        former.check()
    assert raised.value.verdict == REGROUP
    former.release()
    for another in ("run/2/c", "run/1/a", "else/9/z", ""):  # for whom it is one that lives, as ever
        become(another)
        with pytest.raises(CheckpointError, match="is in use by another job"):
            DirectoryLock(tmp_path / ".lock").acquire()
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]
    later.release()
    DirectoryLock(tmp_path / ".lock").acquire()


def test_a_lock_file_that_somebody_removed_is_no_reason_to_stop(tmp_path: Path) -> None:
    held = DirectoryLock(tmp_path / ".lock")
    held.acquire()
    (tmp_path / ".lock").unlink()
    held.check()
    held.release()
    held.check()


def test_what_one_left_that_died_while_it_took_the_lock_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".lock.00ff").write_text("")
    store = LocalStore(tmp_path)
    store.prepare()
    store.release()
    assert [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_ranks_of_a_generation_that_was_written_off_leave_instead_of_saving(
    tmp_path: Path, become: Become, left: list[GroupChanged]
) -> None:
    state = {"model": nn.Linear(3, 3)}
    become("run/1/a")
    with Checkpointer(tmp_path) as former:
        former.save(10, state, wait=True)
        become("run/2/b")
        with Checkpointer(tmp_path) as later:
            assert later.restore(state) == 10
            later.save(15, state, wait=True)
            former.save(20, state, wait=True)
            assert "generation 1 of run run was written off" in left[0].reason
            assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000010", "step-00000015"]
            later.save(20, state, wait=True)
            assert later.failures == 0


def test_a_save_that_was_under_way_when_its_generation_was_written_off_is_not_committed(
    tmp_path: Path, become: Become, left: list[GroupChanged], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host was frozen before the very commit, say; meanwhile the others saved that very step."""
    state = {"model": nn.Linear(3, 3)}
    become("run/1/a")
    with Checkpointer(tmp_path, keep=1) as former:
        guard = former._store.guard
        guarded = 0

        def frozen() -> None:
            nonlocal guarded
            guarded += 1
            if guarded == 2:
                become("run/2/b")
                with Checkpointer(tmp_path, keep=1) as later:
                    later.save(20, state, wait=True)
                    assert later.failures == 0
            guard()

        monkeypatch.setattr(former._store, "guard", frozen)
        former.save(20, state, wait=True)
    assert guarded == 2 and len(left) == 1
    (saved,) = tmp_path.glob("step-*")
    assert (saved / MARKER).exists()


def test_a_commit_whose_draft_is_gone_takes_nothing_away(tmp_path: Path) -> None:
    """The other group took the place between the last look at it and the commit."""
    store = LocalStore(tmp_path)
    store.prepare()
    draft = store.begin(20)
    (store.folder(draft) / "file").write_text("theirs")
    store.commit(draft, b"")
    late = store.begin(20)
    moved = os.rename

    def rename(source: object, target: object) -> None:
        if str(source).endswith(late):
            store.discard(late)
        moved(source, target)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(FileNotFoundError):
        patch.setattr(os, "rename", rename)
        store.commit(late, b"")
    assert (tmp_path / "step-00000020" / "file").read_text() == "theirs"
    store.release()


def test_of_two_jobs_on_an_object_store_the_first_is_told_by_its_next_save(become: Become) -> None:
    become("")
    url = f"memory://{uuid.uuid4().hex}/checkpoints"
    state = {"model": nn.Linear(3, 3)}
    with Checkpointer(url) as first, Checkpointer(url) as second:
        first.save(1, state, wait=True)
        assert second.restore(state) == 1
        first.save(2, state, wait=True)  # one that only reads takes nothing
        second.save(3, state, wait=True)
        with pytest.raises(CheckpointError, match=rf"was taken by another job \(pid {os.getpid()}") as raised:
            first.save(4, state, wait=True)
        assert raised.value.final and raised.value.verdict == GIVE_UP  # type: ignore[attr-defined]
        second.save(5, state, wait=True)
        assert second.failures == 0
    saved = fsspec.filesystem("memory").glob(f"{url}/step-*")
    names = sorted(entry.rpartition("/")[2][:13] for entry in saved)
    assert names == ["step-00000002", "step-00000003", "step-00000005"]


def test_a_generation_that_was_written_off_leaves_an_object_store_alone_too(
    become: Become, left: list[GroupChanged]
) -> None:
    url = f"memory://{uuid.uuid4().hex}/checkpoints"
    state = {"model": nn.Linear(3, 3)}
    become("run/1/a")
    with Checkpointer(url) as former:
        former.save(1, state, wait=True)
        become("run/2/b")
        with Checkpointer(url) as later:
            later.save(2, state, wait=True)
            former.save(3, state, wait=True)
            assert len(left) == 1 and later.restore(state) == 2
