"""Files that hold a secret, or say who is let in: who may read and write them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from edldist.errors import ConfigError
from edldist.keys import private
from edldist.keys.private import check_readers, check_writers, read_bounded, read_token


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text("word-that-is-long-enough-1234\n")
    return path


def test_a_token_is_the_one_word_of_its_file(token: Path) -> None:
    assert read_token(token, "--http-token-file") == "word-that-is-long-enough-1234"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_one_that_others_can_read_is_refused_with_the_command_that_mends_it(token: Path, mode: int) -> None:
    token.chmod(mode)
    with pytest.raises(ConfigError, match=f"others can read the token of --t {token}: chmod 600 {token}"):
        read_token(token, "--t")


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"caf\xc3\xa9", b"\xff\xfe", b"s" * 5000])
def test_a_file_without_a_word_is_refused_and_not_shown(token: Path, content: bytes) -> None:
    token.write_bytes(content)
    with pytest.raises(ConfigError, match="--t: .* holds no token") as refused:
        read_token(token, "--t")
    assert "two" not in str(refused.value) and "sss" not in str(refused.value)


def test_one_that_is_soon_guessed_is_refused_and_not_shown(token: Path) -> None:
    token.write_text("pw" * 7)
    with pytest.raises(
        ConfigError, match="--t: the token in .* has 14 characters, and is soon guessed"
    ) as refused:
        read_token(token, "--t")
    assert "pwpw" not in str(refused.value)


@pytest.mark.parametrize(("kind", "good"), [("file", False), ("folder", True)])
def test_the_sticky_bit_guards_a_folder_alone(tmp_path: Path, kind: str, good: bool) -> None:
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else path.touch()
    path.chmod(0o1777)
    if good:
        check_writers(path, "let anybody in")
        return
    with pytest.raises(ConfigError, match="others can write .*, and let anybody in: chmod go-w"):
        check_writers(path, "let anybody in")


def test_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read .*absent: No such file"):
        read_token(tmp_path / "absent", "--t")
    check_writers(tmp_path / "absent", "let anybody in")  # whoever reads it says so


@pytest.mark.parametrize(
    ("owner", "me", "mode", "good"),
    [
        (0, 1000, 0o440, True),  # as Kubernetes mounts a Secret for a pod with an fsGroup
        (0, 1000, 0o400, True),
        (0, 1000, 0o444, False),
        (0, 1000, 0o460, False),
        (0, 0, 0o440, False),
        (1000, 1000, 0o440, False),
        (1000, 1000, 0o600, True),
    ],
)
def test_roots_file_may_be_readable_for_a_group_of_a_pods(
    monkeypatch: pytest.MonkeyPatch, owner: int, me: int, mode: int, good: bool
) -> None:
    monkeypatch.setattr(
        private,
        "_stat",
        lambda path, missing_ok=False: SimpleNamespace(st_uid=owner, st_mode=0o100000 | mode),
    )
    monkeypatch.setattr(os, "geteuid", lambda: me)
    if good:
        check_readers(Path("teacher.key"), "the secret key")
    else:
        with pytest.raises(ConfigError, match=r"others can read the secret key teacher\.key: chmod 600"):
            check_readers(Path("teacher.key"), "the secret key")


def test_what_is_mounted_read_only_is_nobodys_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"others can write {tmp_path}, and let anybody in: chmod go-w"):
        check_writers(tmp_path, "let anybody in")
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))
    check_writers(tmp_path, "let anybody in")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("owner", "me", "good"), [(0, 1000, True), (1000, 1000, True), (1000, 0, False)])
@pytest.mark.parametrize("also", [1001])
def test_whoever_owns_a_file_can_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, me: int, good: bool, also: int
) -> None:
    def owned_by(user: int) -> None:
        state = SimpleNamespace(st_uid=user, st_mode=0o100600)
        monkeypatch.setattr(private, "_stat", lambda path, missing_ok=False: state)

    monkeypatch.setattr(os, "geteuid", lambda: me)
    owned_by(owner)
    if good:
        check_readers(tmp_path, "the secret key")
        check_writers(tmp_path, "let anybody in")
        owned_by(also)
        owner = also
    with pytest.raises(ConfigError, match=f"the secret key .* belongs to user {owner}.*: chown {me}"):
        check_readers(tmp_path, "the secret key")
    with pytest.raises(ConfigError, match=f"belongs to user {owner}, who can write it, .*: chown {me}"):
        check_writers(tmp_path, "let anybody in")


def test_nobody_waits_for_what_comes_out_of_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "token"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(ConfigError, match="--t: cannot read .*token: it is no file"):
        read_token(pipe, "--t")
    with pytest.raises(OSError, match="it is no file"):
        read_bounded(tmp_path, 10)
