"""Property tests judge what is computed, not how long a busy machine takes; a timeout ends a hanging one."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Tensors of tests are small, several processes compute at once, and threads that wait for each other spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")


_COMPUTE = {"fuzz", "mutation", "simulation", "unit"}
"""Folders of tests that compute; those of the others wait for processes most of the time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let files that compute and files that wait take turns, so that several processes use all cores.

    One folder after the other they would wait for each other first, and then compete.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    kinds: tuple[list[Path], list[Path]] = ([], [])
    for path in files:
        kinds[bool(_COMPUTE & {part.name for part in path.parents})].append(path)
    turns = sorted((place / len(kind), path) for kind in kinds for place, path in enumerate(kind))
    items[:] = [item for _, path in turns for item in files[path]]


def pytest_collection_finish() -> None:
    """What is collected stays to the end: to look for cycles among it takes half a second each time."""
    gc.collect()
    gc.freeze()


settings.register_profile("edldist", deadline=None)
settings.load_profile("edldist")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """A command that is run in process leaves what its children are to know in the environment."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
            del os.environ[name]
        os.environ.update(before)


@pytest.fixture(autouse=True)
def no_named_coordinator() -> Iterator[None]:
    """A loader that is given its coordinator names it for all later reports of its process."""
    yield
    if (reporter := sys.modules.get("edldist.observe.reporter")) is not None:
        reporter._coordinator = None


@pytest.fixture(autouse=True)
def no_accelerator() -> Iterator[None]:
    """What Accelerate knows of a process it knows for good, and a rank that is told of others believes it."""
    yield
    if (state := sys.modules.get("accelerate.state")) is not None:
        for known in (state.AcceleratorState, state.GradientState, state.PartialState):
            known._reset_state()


@pytest.fixture(autouse=True)
def nobody_is_asked() -> Iterator[None]:
    """Who was asked to stop is asked for good: a signal of one test is no business of the next one."""
    yield
    request = getattr(sys.modules.get("edldist.lifecycle.stopping"), "_request", None)
    if request is not None:
        request.asked = request._agreed = False


@pytest.fixture
def open_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test starts may go beyond this machine without keys."""
    monkeypatch.setenv("EDLDIST_INSECURE", "1")


@pytest.fixture(scope="session", autouse=True)
def own_place_for_temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What processes that tests kill leave there (sockets of data loader workers) goes with pytest's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("t")))
        patch.setattr(tempfile, "tempdir", None)
        yield
