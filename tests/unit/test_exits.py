"""What a command line leaves behind when it ends: a code, and one line instead of a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from edldist.errors import ConfigError, CoordinatorUnreachableError, ModelError, ProtocolVersionError
from edldist.signals import ASKING
from edldist_launch.process.exits import run_command, was_asked
from edldist_launch.process.version import own_version


def ending(outcome: object) -> click.Command:
    """A command that returns this, or raises it."""

    def act() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return click.Command("act", callback=act)


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.argv", ["act"])
    former = {number: signal.getsignal(number) for number in ASKING}  # the test's process is to live on
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (click.UsageError("no such row"), 2, "no such row"),
        (click.NoSuchOption("--new"), 2, f" (this is {own_version()})\n"),
        (ConfigError("ttl_s=0 is too short"), 2, "error: ttl_s=0 is too short\n"),
        (ModelError("no such factory"), 2, "error: no such factory\n"),
        (ProtocolVersionError("1", "2-ab"), 2, "wire protocol 1, this process speaks 2-ab"),
        (CoordinatorUnreachableError("nobody at tcp://x:1"), 1, "error: nobody at tcp://x:1\n"),
        (click.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_every_end_has_its_code_and_its_word(
    outcome: object, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(ending(outcome), "act")
    assert ended.value.code == code
    told = capsys.readouterr()
    assert told.out == "" and says in told.err
    assert bool(says) or not told.err.strip()


def test_what_nobody_expected_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(ending(ZeroDivisionError()), "act")


# A command that sends itself a signal before it has handlers of its own, or when it has ended.
COMMAND = """
import atexit, os, signal, sys, click
from edldist_launch.process.exits import run_command
when, number = sys.argv[1], int(sys.argv[2])
signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
del sys.argv[1:]

def act():
    if when == "early":
        os.kill(os.getpid(), number)
    return 7

atexit.register(lambda: os.kill(os.getpid(), number) if when == "late" else None)
run_command(click.Command("act", callback=act), "act")
"""


def ends(when: str, number: int) -> tuple[int, str]:
    command = [sys.executable, "-c", COMMAND, when, str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", ASKING)
def test_whoever_is_asked_before_it_has_begun_ends_as_one_that_was_stopped(number: signal.Signals) -> None:
    """With one code, and with a word; only a Ctrl-C, which a person sees, has its own."""
    code, said = ends("early", number)
    assert code == (130 if number == signal.SIGINT else 143), said
    assert (f"stopped by {number.name}\n" in said) == (number != signal.SIGINT)


@pytest.mark.parametrize("number", ASKING)
def test_what_is_sent_again_at_the_end_does_not_change_the_exit_code(number: signal.Signals) -> None:
    code, said = ends("late", number)
    assert (code, said) == (7, "")


def test_a_child_that_was_asked_to_stop_is_told_by_its_exit_code() -> None:
    asked = [143, 130, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGINT]
    assert all(was_asked(code) for code in asked)
    assert not any(was_asked(code) for code in (0, 1, 2, 3, 75, 137, -signal.SIGKILL, -signal.SIGSEGV))


WRITES = (
    "import click, sys; from edldist_launch.process.exits import run_command;"
    "command = click.Command('act', callback=lambda: [{act} for _ in range(9)] and None);"
    "sys.argv = ['act']; run_command(command, 'act')"
)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ("click.echo('x' * 100_000)", 0),
        ("print('x' * 100_000)", 0),
        ("(_ for _ in ()).throw(BrokenPipeError(32, 'another pipe'))", 1),
    ],
)
def test_a_reader_who_has_seen_enough_is_no_error(act: str, code: int) -> None:
    """As ``edldist status --json | head -1``; that of another pipe than the output is one."""
    reader, writer = os.pipe()
    if code == 0:
        os.close(reader)
    try:
        program = [sys.executable, "-c", WRITES.format(act=act)]
        done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(writer)
        if code:
            os.close(reader)
    assert (done.returncode, done.stderr) == (code, "")
