"""Folders of keys: made, read, rotated; what is missing, damaged or open to others is refused."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq

from edldist.errors import ConfigError
from edldist.keys.folder import KNOWN, KeyFolder
from edldist.keys.keyring import Keyring
from edldist.keys.live import LiveKeys, job_keys
from edldist.keys.pair import ROLES, new_pair
from edldist.wire.zmq.keys import socket_keys

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    made = KeyFolder(tmp_path / "keys")
    made.make()
    return made


def test_each_role_has_a_pair_that_only_its_owner_reads(folder: KeyFolder) -> None:
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.path.iterdir()}
    assert modes == {KNOWN: 0o644} | {f"{role}.key": 0o600 for role in ROLES}
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    for role in ROLES:
        ring = folder.ring(role)
        assert ring.own.role == role and ring.of_role(role, 0.0) == [ring.own.public]
        assert ring.role_of(ring.own.public, 0.0) == role
        assert ring.own.secret not in (folder.path / KNOWN).read_text()
        assert ring.own.secret not in repr(ring.own)
    assert ring.role_of(new_pair("teacher", "x").public, 0.0) is None


def test_a_machine_needs_the_list_and_its_own_key_only(folder: KeyFolder) -> None:
    for role in set(ROLES) - {"teacher"}:
        (folder.path / f"{role}.key").unlink()
    assert folder.ring("teacher").own.role == "teacher"
    with pytest.raises(ConfigError, match=r"has none of the keys that a student needs: put student\.key"):
        folder.ring("student")


def test_one_more_key_of_a_role(folder: KeyFolder) -> None:
    pair = folder.add("teacher", "alice")
    (folder.path / "teacher.key").unlink()
    ring = folder.ring("teacher")
    assert ring.own == pair and len(ring.of_role("teacher", 0.0)) == 2
    folder.add("teacher", "bob")
    with pytest.raises(ConfigError, match=r"has several: teacher-alice\.key, teacher-bob\.key"):
        folder.ring("teacher")


def test_former_keys_count_for_a_while(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    former = {role: folder.ring(role).own for role in ROLES}
    monkeypatch.setattr("edldist.keys.folder.time.time", lambda: 1000.0)
    folder.rotate(keep_s=60)
    for role in ROLES:
        ring = folder.ring(role)
        assert ring.own != former[role]
        assert ring.of_role(role, 1059.0) == [ring.own.public, former[role].public]
        assert ring.of_role(role, 1060.0) == [ring.own.public]
        assert ring.role_of(former[role].public, 1060.0) is None
    assert folder.retire() == 4 and folder.retire() == 0


def test_a_retired_key_says_when(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = (folder.path / "teacher.key").read_bytes()
    folder.rotate(keep_s=0)
    (folder.path / "teacher.key").write_bytes(stale)
    with pytest.raises(ConfigError, match=r"teacher\.key was retired at \d{4}-.* UTC"):
        folder.ring("teacher")
    folder.retire()
    with pytest.raises(ConfigError, match=r"teacher\.key is not among the keys of .*known\.json"):
        folder.ring("teacher")


def _edit(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return edit


BAD = {
    "no list": (lambda f: (f / KNOWN).unlink(), "cannot read .*known.json: No such file"),
    "a cut list": (lambda f: (f / KNOWN).write_bytes((f / KNOWN).read_bytes()[:90]), "known.json is damaged"),
    "a cut key": (
        lambda f: (f / "teacher.key").write_bytes((f / "teacher.key").read_bytes()[:90]),
        r"teacher\.key is damaged\. Copy it anew",
    ),
    "a huge list": (lambda f: (f / KNOWN).write_bytes(b" " * (2 << 20)), "more than 1048576 bytes"),
    "another format": (_edit("teacher.key", lambda c: c.update(format=2)), "is of format 2"),
    "another list's format": (_edit(KNOWN, lambda c: c.update(format=2)), "is of format 2"),
    "another role": (
        _edit("teacher.key", lambda c: c.update(role="student")),
        "a key for the role 'student'",
    ),
    "half of another pair": (
        _edit("teacher.key", lambda c: c.update(public=new_pair("teacher", "x").public)),
        "two halves are not of one pair",
    ),
    "a short secret": (_edit("teacher.key", lambda c: c.update(secret=c["secret"][:39])), "not of one pair"),
    "no key": (_edit(KNOWN, lambda c: c["keys"][0].update(public="x" * 39)), "is none"),
    "no role": (_edit(KNOWN, lambda c: c["keys"][0].update(role="boss")), "the key of 'boss'"),
    "a new field": (_edit("teacher.key", lambda c: c.update(more=1)), "is damaged"),
    "readable": (lambda f: (f / "teacher.key").chmod(0o644), r"others can read .*: chmod 600 "),
    "readable for a group": (lambda f: (f / "teacher.key").chmod(0o640), "chmod 600"),
    "a list that others write": (
        lambda f: (f / KNOWN).chmod(0o666),
        r"others can write .*chmod go-w .*known",
    ),
    "a folder that others write": (
        lambda f: f.chmod(0o777),
        "others can write .*, and let anybody in: chmod go-w",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_trusted_is_refused_without_a_word_of_the_secret(folder: KeyFolder, case: str) -> None:
    secret = json.loads((folder.path / "teacher.key").read_text())["secret"]
    spoil, words = BAD[case]
    spoil(folder.path)  # type: ignore[no-untyped-call]
    with pytest.raises(ConfigError) as caught:
        folder.ring("teacher")
    assert re.search(words, str(caught.value)), str(caught.value)
    assert secret[:20] not in str(caught.value)


def test_no_key_is_made_where_others_could_read_it_meanwhile(tmp_path: Path) -> None:
    open_to_all = KeyFolder(tmp_path / "open")
    open_to_all.path.mkdir()
    open_to_all.path.chmod(0o777)
    with pytest.raises(
        ConfigError, match="others can write .*open, and read the keys that are about to be made"
    ):
        open_to_all.make()
    assert not list(open_to_all.path.iterdir())


def test_what_a_killed_keygen_left_opens_no_key(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.path.mkdir(mode=0o700)
    left = folder.path / ".teacher.key.new"
    left.touch()
    left.chmod(0o666)
    with left.open("rb") as watcher:
        folder.make()
        assert watcher.read() == b""
    assert (folder.path / "teacher.key").stat().st_mode & 0o777 == 0o600


def test_there_is_one_set_in_a_folder(folder: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has keys: edldist keygen --rotate"):
        folder.make()
    for role, name, words in (
        ("boss", "a", "'boss' is no role"),
        ("teacher", "A b", "cannot name a key"),
        ("teacher", "", "cannot name a key"),
        ("teacher", "teacher", "cannot name a key"),
    ):
        with pytest.raises(ConfigError, match=words):
            folder.add(role, name)
    folder.add("teacher", "a")
    with pytest.raises(ConfigError, match="has a key of teacher 'a'"):
        folder.add("teacher", "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write keys into"):
        KeyFolder(tmp_path / "file").make()


def test_new_keys_are_read_while_a_process_runs(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edldist.keys.live.LOOK_S", 0.0)
    live = LiveKeys(folder.path, "teacher")
    before = live.ring.own
    folder.rotate(keep_s=60)
    await_that(lambda: live.ring.own != before)
    after = live.ring.own
    assert live.ring.role_of(before.public, 0.0) == "teacher"
    (folder.path / KNOWN).write_text("{")
    await_that(lambda: bool(live.ring) and "going on with the former keys" in caplog.text)
    for _ in range(3):
        assert live.ring.own == after
    assert caplog.text.count("going on with the former keys") == 1
    (folder.path / "teacher.key").unlink()
    folder.path.joinpath(KNOWN).unlink()
    await_that(lambda: bool(live.ring) and caplog.text.count("going on") == 2)
    assert live.ring.own == after


def test_nobody_waits_for_a_file_system_that_hangs(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist.keys.live.LOOK_S", 0.0)
    live = LiveKeys(folder.path, "teacher")
    before, hangs, asked = live.ring.own, threading.Event(), threading.Event()
    signature = KeyFolder.signature

    def slow(self: KeyFolder) -> tuple[object, ...]:
        asked.set()
        hangs.wait(60)
        return signature(self)

    monkeypatch.setattr(KeyFolder, "signature", slow)
    folder.rotate(keep_s=60)
    await_that(lambda: live.ring.own == before and asked.is_set())
    assert live.ring.own == before
    assert live._reader is not None and live._reader.daemon, "nor does a process that ends"
    hangs.set()
    await_that(lambda: live.ring.own != before)


def test_where_no_thread_is_to_be_had_the_next_look_gets_one(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist.keys.live.LOOK_S", 0.0)
    live = LiveKeys(folder.path, "teacher")
    before, none, started = live.ring.own, [True], threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if none and none.pop():
            raise RuntimeError("can't start new thread")
        started(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    folder.rotate(keep_s=60)
    assert live.ring.own == before and not none
    await_that(lambda: live.ring.own != before)


def test_a_folder_is_looked_at_once_a_second_however_often_keys_are_asked_for(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, looks, reads, signature, ring = [100.0], [], [], KeyFolder.signature, KeyFolder.ring

    def counted(self: KeyFolder) -> tuple[object, ...]:
        looks.append(now[0])
        return signature(self)

    def read(self: KeyFolder, role: str) -> Keyring:
        reads.append(now[0])
        return ring(self, role)

    monkeypatch.setattr(KeyFolder, "signature", counted)
    monkeypatch.setattr(KeyFolder, "ring", read)
    monkeypatch.setattr("edldist.keys.live.time", SimpleNamespace(monotonic=lambda: now[0]))
    live = LiveKeys(folder.path, "teacher")
    for now[0] in (100.5, 101.0, 101.5, 102.0, 102.5):
        assert live.ring.own.role == "teacher"
        if live._reader is not None:
            live._reader.join(90)
    assert looks == [100.0, 101.0, 102.0] and reads == [100.0], "what did not change is not read again"
    (folder.path / KNOWN).write_text("{")
    looks.clear()
    for now[0] in (102.9, 103.0, 103.5, 104.1, 105.0):
        for _ in range(3):
            assert live.ring.own.role == "teacher"
            if live._reader is not None:
                live._reader.join(90)
    assert looks == [103.0, 104.1]
    assert caplog.text.count("going on with the former keys") == 1


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_variable_names_the_folder(folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDLDIST_KEYS", raising=False)
    assert job_keys("teacher") is None
    monkeypatch.setenv("EDLDIST_KEYS", os.fspath(folder.path))
    keys = job_keys("teacher")
    assert keys is not None and keys.ring.own.role == "teacher"


def test_a_libzmq_that_seals_nothing_is_refused_where_keys_are_given(
    folder: KeyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDLDIST_KEYS", os.fspath(folder.path))
    monkeypatch.setattr("zmq.has", lambda what: False)
    with pytest.raises(ConfigError, match="built without CURVE, and seals nothing: install pyzmq's own"):
        socket_keys("teacher")


@pytest.mark.parametrize("name", [KNOWN, "teacher.key"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(folder: KeyFolder, name: str) -> None:
    (folder.path / name).unlink()
    os.mkfifo(folder.path / name, 0o600)
    with pytest.raises(ConfigError, match=f"cannot read .*{name}: it is no file"):
        folder.ring("teacher")


def test_messages_have_the_right_article(folder: KeyFolder) -> None:
    (folder.path / "operator.key").unlink()
    with pytest.raises(ConfigError, match="the keys that an operator needs"):
        folder.ring("operator")
