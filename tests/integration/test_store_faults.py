"""Kept labels of processes that are killed while they write, that write together, or meet a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from edldist import LabelStore
from edldist.store import folder as folder_module
from tests.unit.kept_labels import Labels, recipe

PRELUDE = """
import builtins, io, json, os, resource, shutil, signal, sys
from pathlib import Path

import numpy as np

from edldist import LabelStore
from edldist.store import folder as folder_module
from edldist.store.folder import ShelfFolder
from edldist.store.kept_rows import KeptRows
from edldist.store.layout import layout_of
from tests.unit.kept_labels import Labels, recipe

root = sys.argv[1]
folder_module.SETTLING_S = 0.0

def put(store, *all_labels):
    for labels in all_labels:
        labels.put(store.shelf(recipe()))
    return store.shelf(recipe()).flush(60)
"""

KILLS = """
def kill_at_call(number):
    calls = 0
    def deadly(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for module, names in ((os, "fsync rename replace mkdir unlink open"), (io, "open"), (builtins, "open")):
        for name in names.split():
            setattr(module, name, deadly(getattr(module, name)))

def kept(labels):
    layout = layout_of(labels.specs)
    return KeptRows(layout, labels.keys, None, None, [labels.tables[column.name] for column in layout])

def add(folder, first):
    folder.add(kept(new))

def remove(folder, first):
    folder.remove([first])

def set_aside(folder, first):
    (folder.path / first).write_bytes(b"damaged")
    folder.set_aside(first)

old, other, new = Labels(0, 20), Labels(20, 40), Labels(40, 60)
base = root + "/base"
with LabelStore(base) as store:
    assert put(store, old)
    first = next(iter(store.shelf(recipe()).files.place.entries()))
    assert put(store, other)
report = {}
for step in (add, remove, set_aside):
    outcomes, number, finished = [], 0, False
    while not finished:
        number += 1
        place = f"{root}/{step.__name__}-{number}"
        shutil.copytree(base, place)
        pid = os.fork()
        if pid == 0:
            folder = ShelfFolder(Path(place) / "recipes" / recipe().digest, recipe())
            kill_at_call(number)
            step(folder, first)
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        finished = status == 0
        assert finished or os.WIFSIGNALED(status), status
        with LabelStore(place) as store:
            shelf = store.shelf(recipe())
            found = [labels.are_found(shelf) for labels in (old, other, new)]
            parts = [shelf.find(labels.keys) is None for labels in (old, other, new)]
            assert [not each for each in parts] == found, "some labels of a file, and not all"
            assert step is set_aside or [audit.damaged for audit in store.verify()] == [{}]
            left = [name for name in os.listdir(shelf.files.place.path) if name.endswith(".new")]
            left = [name for name in left if name != ".index.json.new"]  # the next list takes its place
            assert put(store, old, other, new)
            assert all(labels.are_found(shelf) for labels in (old, other, new)), "labelled again"
        with LabelStore(place) as store:
            assert all(labels.are_found(store.shelf(recipe())) for labels in (old, other, new))
        outcomes.append([found, left])
        shutil.rmtree(place)
    report[step.__name__] = outcomes
print(json.dumps(report))
"""

FULL_DISK = """
report = []
from edldist.store import keeper
keeper.RETRY_S = 0.0
labels = Labels(0, 200)
with LabelStore(root + "/store") as store:
    shelf = store.shelf(recipe())
    assert put(store, labels)
    for at, limit_bytes in enumerate((0, 100, 1_000, 10_000)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        flushed = put(store, Labels(1000 * (at + 1), 1000 * (at + 1) + 500))
        trouble = shelf.trouble
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert labels.are_found(shelf)
        left = [name for name in os.listdir(shelf.files.place.path) if name.endswith(".new")]
        report.append([flushed, trouble, left, shelf.figures()["dropped"]])
    report.append([put(store, Labels(9000, 9500)), shelf.trouble, [], shelf.figures()["dropped"]])
with LabelStore(root + "/store") as store:
    shelf = store.shelf(recipe())
    assert labels.are_found(shelf) and Labels(9000, 9500).are_found(shelf)
    assert [audit.damaged for audit in store.verify()] == [{}]
print(json.dumps(report))
"""

WRITER = """
with LabelStore(root) as store:
    for first in range(int(sys.argv[2]), int(sys.argv[3]), 10):
        assert put(store, Labels(first, first + 10))
        print(first, flush=True)
"""


def _start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("EDLDIST_")},
    )


def _run(script: str, *arguments: object) -> object:
    process = _start(script, *arguments)
    told, trouble = process.communicate(timeout=200)
    assert process.returncode == 0, trouble
    return json.loads(told)


def test_kill_at_any_moment_leaves_labels_whole_or_not_there(tmp_path):
    report = _run(KILLS, tmp_path)
    for step, before, after in (
        ("add", [True, True, False], [True, True, True]),
        ("remove", [True, True, False], [False, True, False]),
        ("set_aside", [True, True, False], [False, True, False]),
    ):
        outcomes = report[step]
        assert len(outcomes) > 8, "the fault did not fire at every phase"
        found = [each for each, _ in outcomes]
        assert found[-1] == after
        assert all(each in (before, after) for each in found)
        assert not any(left for _, left in outcomes), "drafts of the dead"
    assert report["add"][0][0] == [True, True, False] and report["remove"][0][0] == [True, True, False]


def test_a_disk_that_is_full_costs_no_labels_that_were_there_and_leaves_nothing(tmp_path):
    *full, last = _run(FULL_DISK, tmp_path)
    for flushed, trouble, left, _ in full:
        assert not flushed and "File too large" in trouble and not left
    assert [dropped for *_, dropped in full] == [500, 1000, 1500, 2000]
    assert last == [True, "", [], 2000]


@pytest.mark.slow
def test_what_a_writer_has_flushed_outlives_it_while_another_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "SETTLING_S", 0.0)
    doomed, other = _start(WRITER, tmp_path, 0, 100_000), _start(WRITER, tmp_path, 100_000, 100_300)
    try:
        flushed = [int(doomed.stdout.readline()) for _ in range(12)]
        doomed.send_signal(signal.SIGKILL)
        assert doomed.wait(60) == -signal.SIGKILL
        _, trouble = other.communicate(timeout=150)
        assert other.returncode == 0, trouble
    finally:
        for process in (doomed, other):
            process.kill()
            process.wait(60)
            process.stdout.close()
            process.stderr.close()
    with LabelStore(tmp_path) as store:
        shelf = store.shelf(recipe())
        assert all(Labels(first, first + 10).are_found(shelf) for first in flushed)
        assert all(Labels(first, first + 10).are_found(shelf) for first in range(100_000, 100_300, 10))
        assert [audit.damaged for audit in store.verify()] == [{}]
        names = os.listdir(tmp_path / "recipes" / recipe().digest)
        assert not [name for name in names if name.endswith(".new")]
