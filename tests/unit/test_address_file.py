"""A coordinator is named by an address, or by a file in which it says its address."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from edldist.address import Address
from edldist.address_file import AddressFile, find_coordinator, parse_coordinator
from edldist.errors import ConfigError, CoordinatorUnreachableError

HERE = {"address": "tcp://10.0.0.5:7070", "http": None, "pid": 7, "incarnation": "a"}


def test_a_coordinator_is_an_address_or_a_file() -> None:
    assert parse_coordinator("tcp://h:7070", "--coordinator") == Address("h", 7070)
    assert parse_coordinator("file:/jobs/a b/c.json", "--coordinator") == AddressFile(
        Path("/jobs/a b/c.json")
    )
    assert str(AddressFile(Path("/jobs/c.json"))) == "file:/jobs/c.json"


@pytest.mark.parametrize(
    "text", ["file:", "file:relative", "file:/a\0b", "FILE:/a", "h:7070", "tcp://h:0", ""]
)
def test_what_is_neither_is_refused_with_the_value_and_where_it_was_given(text: str) -> None:
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR: ") as caught:
        parse_coordinator(text, "EDLDIST_COORDINATOR")
    assert repr(text) in str(caught.value)


def test_what_a_coordinator_wrote_is_read_whole_and_the_last_one_counts(tmp_path: Path) -> None:
    file = AddressFile(tmp_path / "c.json")
    assert file.read() is None
    file.write(HERE)
    assert file.read() == Address("10.0.0.5", 7070)
    file.write(HERE | {"address": "tcp://[fd00::5]:7071"})
    assert file.read() == Address("fd00::5", 7071)
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    file.remove()
    file.remove()
    assert file.read() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'"tcp://h:1"', b"{}", b'{"address": 7}', b'{"address": "h:1"}', b"\xff\xfe"]
    + [b"[" * 4000, b'{"address": null}', b'{"address": "tcp://h:0"}'],
)
def test_another_file_is_refused_by_its_path_and_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path} is no address file of a coordinator"):
        AddressFile(path).read()


def test_a_folder_that_cannot_be_written_is_said_and_no_draft_is_left(tmp_path: Path) -> None:
    (tmp_path / "c.json").mkdir()
    with pytest.raises(ConfigError, match="cannot write the address file"):
        AddressFile(tmp_path / "c.json").write(HERE)
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]
    with pytest.raises(ConfigError, match="cannot write the address file .*No such file"):
        AddressFile(tmp_path / "none" / "c.json").write(HERE)


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    looked = threading.Event()

    def stop() -> bool:
        looked.set()
        return False

    def write() -> None:
        assert looked.wait(20)
        AddressFile(path).write(HERE)

    writer = threading.Thread(target=write)
    writer.start()
    assert find_coordinator(f"file:{path}", "it", 20.0, stop) == Address("10.0.0.5", 7070)
    writer.join()
    assert find_coordinator("tcp://h:1", "it", 0.0) == Address("h", 1)


def test_nobody_waits_for_ever_and_a_file_server_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CoordinatorUnreachableError, match=f"wrote {tmp_path}/c.json within 0 s. Is one running"
    ):
        find_coordinator(f"file:{tmp_path}/c.json", "it", 0.0)
    with pytest.raises(CoordinatorUnreachableError, match=r"within 300 s \(Is a directory\)"):
        find_coordinator(f"file:{tmp_path}", "it", 300.0, lambda: True)
    (tmp_path / "c.json").write_text(json.dumps({"steps": 1}))
    with pytest.raises(ConfigError, match="no address file"):
        find_coordinator(f"file:{tmp_path}/c.json", "it", 300.0)
