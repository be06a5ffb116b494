"""A data loader's processes that are killed by the SIGTERM that stops their rank are no error of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from edldist.lifecycle import readers

TERMINATED = "DataLoader worker (pid 17) is killed by signal: Terminated. "


def install(error: Exception | None) -> Callable[..., None]:
    """A handler as torch's is, which finds what it is told to find."""

    def handler(signum: int, frame: object) -> None:
        if error is not None:
            raise error

    handler.__module__ = "torch.utils.data._utils.signal_handling"
    signal.signal(signal.SIGCHLD, handler)
    return handler


def a_child_ends() -> None:
    os.kill(os.getpid(), signal.SIGCHLD)


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(readers, "_TOGETHER_S", 0.2)
    former = {number: signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGTERM)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_an_error_of_a_rank_that_goes_on_stays_one() -> None:
    install(RuntimeError(TERMINATED))
    readers.excuse(lambda: False)
    with pytest.raises(RuntimeError, match="Terminated"):
        a_child_ends()


def test_a_rank_that_is_told_to_stop_needs_no_reader() -> None:
    install(RuntimeError(TERMINATED))
    readers.excuse(lambda: True)
    a_child_ends()


@pytest.mark.parametrize("killed_by", ["User defined signal 1", "User defined signal 2", "Hangup"])
def test_so_it_is_with_the_warnings_of_batch_systems(killed_by: str) -> None:
    install(RuntimeError(f"DataLoader worker (pid 17) is killed by signal: {killed_by}. "))
    readers.excuse(lambda: True)
    a_child_ends()


def test_the_rank_may_be_told_after_its_readers() -> None:
    told: list[int] = []

    def comes_next() -> bool:
        if not told:
            os.kill(os.getpid(), signal.SIGTERM)
        return bool(told)

    signal.signal(signal.SIGTERM, lambda signum, frame: told.append(signum))
    install(RuntimeError(TERMINATED))
    readers.excuse(comes_next)
    a_child_ends()
    assert told == [signal.SIGTERM]


@pytest.mark.parametrize("error", [RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. ")])
def test_who_dies_otherwise_is_an_error_all_the_same(error: Exception) -> None:
    install(error)
    readers.excuse(lambda: True)
    with pytest.raises(RuntimeError, match="Killed"):
        a_child_ends()


def test_reading_ends_at_once_for_it_would_wait_for_what_nobody_brings() -> None:
    install(RuntimeError(TERMINATED))
    readers.excuse(lambda: True)
    with pytest.raises(RuntimeError, match="Terminated"), readers.reading():
        a_child_ends()
    a_child_ends()


def test_handlers_of_others_are_left_alone() -> None:
    def theirs(signum: int, frame: object) -> None: ...

    signal.signal(signal.SIGCHLD, theirs)
    readers.excuse(lambda: True)
    assert signal.getsignal(signal.SIGCHLD) is theirs
    handler = install(None)
    readers.excuse(lambda: True)
    wrapped = signal.getsignal(signal.SIGCHLD)
    assert wrapped is not handler
    readers.excuse(lambda: True)
    assert signal.getsignal(signal.SIGCHLD) is wrapped
