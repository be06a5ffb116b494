"""Which files go for others, of whatever recipe, and which do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edldist.errors import StoreError
from edldist.store.room import Room, StoredFile, to_go


def stored(used: float, name: str, nbytes: int) -> StoredFile:
    return StoredFile(used, Path(name), nbytes)


def test_no_more_go_than_have_to_and_the_least_recently_used_first() -> None:
    files = [stored(3, "a", 10), stored(1, "b", 10), stored(0, "c", 5)]
    assert to_go(files, 5, 30) == []
    assert to_go(files, 6, 30) == [files[2]], "what is damaged is of no use"
    assert to_go(files, 10, 30) == [files[2]]
    assert to_go(files, 11, 30) == [files[2], files[1]]
    assert to_go(files, 100, 30) == [files[2], files[1], files[0]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Two recipes, each with two files of 10 bytes, one of them damaged, and what is nobody's."""
    used = 100
    for recipe in ("ab", "cd"):
        (tmp_path / recipe / "damaged").mkdir(parents=True)
        for name in ("new.safetensors", "old.safetensors", "index.json", "damaged/bad.safetensors"):
            (tmp_path / recipe / name).write_bytes(bytes(10))
            used -= 1
            os.utime(tmp_path / recipe / name, (used, used))
    (tmp_path / "README").write_text("mine")
    (tmp_path / "ef").mkdir()
    return tmp_path


def made(place: Path, most_bytes: int, evicts: bool = True) -> tuple[Room, list[tuple[str, list[str]]]]:
    """Room, and what it asks to be removed."""
    asked: list[tuple[str, list[str]]] = []
    return Room(place, most_bytes, lambda folder, names: asked.append((folder.name, names)), evicts), asked


def bad(place: Path) -> list[bool]:
    return [(place / recipe / "damaged" / "bad.safetensors").exists() for recipe in ("ab", "cd")]


def test_where_there_is_room_nothing_goes(place: Path) -> None:
    room, asked = made(place, 61)
    room.make(1)
    assert (asked, room.evicted, bad(place)) == ([], 0, [True, True])


def test_damaged_files_go_first_and_others_by_the_folder_that_has_listed_them(place: Path) -> None:
    room, asked = made(place, 61)
    room.make(21)
    assert (asked, room.evicted, bad(place)) == ([], 2, [False, False])
    room.make(42)
    assert asked == [("cd", ["old.safetensors", "new.safetensors"]), ("ab", ["old.safetensors"])]
    assert room.evicted == 5


def test_where_sound_files_stay_only_damaged_ones_go(place: Path) -> None:
    room, asked = made(place, 61, evicts=False)
    with pytest.raises(StoreError, match=r"may have 61 bytes of files \(store.disk\), and has 60, none"):
        room.make(22)
    assert (asked, room.evicted, bad(place)) == ([], 0, [True, True])
    room.make(21)
    assert (asked, room.evicted, bad(place)) == ([], 2, [False, False])
    with pytest.raises(StoreError, match="has 40, none"):
        room.make(22)


def test_a_damaged_file_that_another_process_took_away_is_no_trouble(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, _ = made(place, 61)
    gone = StoredFile(0.0, place / "ab" / "damaged" / "gone.safetensors", 100)
    monkeypatch.setattr(room, "_files", lambda: [gone])
    room.make(1)
    assert room.evicted == 1
