"""Uses of a loader that would train on the wrong samples, or wait for ever, are said."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import ConfigError
from tests.harness import LocalJob

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_ranks_that_read_the_same_samples_are_told_in_their_first_loop_only(memory_job, monkeypatch, caplog):
    memory_job.teacher()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    data = DataLoader([{"id": n} for n in range(20)], batch_size=4, shuffle=True)
    loader = memory_job.loader(data, inputs="id")
    loader.load_state_dict(loader.state_dict())
    evaluation = memory_job.loader(data, inputs="id", checkpointed=False)
    assert "goes through" not in caplog.text
    for made in (loader, loader, evaluation):
        assert len(list(made)) == 5
    assert caplog.text.count("each of 2 ranks goes through all 20 samples") == 1


def in_a_fork(work) -> str:
    """What a forked child says of some work, or how it raised; it is killed if it hangs."""
    ear, mouth = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            said = repr(work())
        except BaseException as exc:
            said = f"{type(exc).__name__}: {exc}"
        os.write(mouth, said.encode())
        os._exit(0)
    os.close(mouth)
    with os.fdopen(ear) as said_there:
        answer = said_there.read()
    os.waitpid(child, 0)
    return answer


@contextlib.contextmanager
def held_by_another_thread(lock) -> Iterator[None]:
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            over.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        yield
    finally:
        over.set()
        thread.join()


def uses(loader, running):
    return {
        "begins a loop": lambda: iter(loader),
        "goes on with a loop": lambda: next(running),
        "restores": lambda: loader.load_state_dict(loader.state_dict()),
        "names an epoch": lambda: loader.set_epoch(2),
    }


def test_a_forked_child_that_uses_its_parents_loader_is_told_why_it_cannot(memory_job: LocalJob):
    memory_job.teacher()
    loader = memory_job.loader([{"id": torch.arange(4)}] * 3, inputs="id")
    running = iter(loader)
    next(running)
    for work in uses(loader, running).values():
        said = in_a_fork(work)
        assert said.startswith(
            f"ConfigError: this DistillLoader was made by process {os.getpid()}, and process"
        )
        assert "make another one here" in said
    with held_by_another_thread(loader._service.delivery._lock):  # as the I/O thread may have in a fork
        assert in_a_fork(running.close) == "None"
    assert len(list(running)) == 2


class Nested(torch.utils.data.IterableDataset):
    def __init__(self, loader) -> None:
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


def test_a_data_loader_with_workers_around_a_loader_says_so_in_the_loop(memory_job: LocalJob):
    memory_job.teacher()
    loader = memory_job.loader([{"id": torch.arange(4)}] * 3, inputs="id")
    around = DataLoader(Nested(loader), batch_size=None, num_workers=1)
    with pytest.raises(ConfigError, match="make another one here"):
        next(iter(around))
