"""What a command line leaves behind when it ends: a code, and one line instead of a traceback."""

from __future__ import annotations

import click
import pytest

from edldist.errors import ConfigError, CoordinatorUnreachableError, ModelError
from edldist_launch.process.exits import run_command


def ending(outcome: object) -> click.Command:
    """A command that returns this, or raises it."""

    def act() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return click.Command("act", callback=act)


@pytest.fixture(autouse=True)
def no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["act"])


@pytest.mark.parametrize(
    ("outcome", "code", "says"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (click.UsageError("no such row"), 2, "no such row"),
        (ConfigError("ttl_s=0 is too short"), 2, "error: ttl_s=0 is too short\n"),
        (ModelError("no such factory"), 2, "error: no such factory\n"),
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
