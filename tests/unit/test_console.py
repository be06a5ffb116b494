"""The console: what it prints is whole, and nobody's text is read as markup."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from edldist_launch.view.console import PIPE_WIDTH, PlainConsole


def row(console: PlainConsole) -> str:
    """A row of five cells that need 100 columns and may not wrap, as printed."""
    table = Table(box=None, show_header=False)
    for _ in range(5):
        table.add_column(no_wrap=True)
    table.add_row(*("x" * 20 for _ in range(5)))
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip("\n")


def test_a_table_in_a_pipe_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    console = PlainConsole(file=io.StringIO())
    assert console.width == PIPE_WIDTH
    assert row(console).split() == ["x" * 20] * 5


def test_a_terminal_keeps_its_width_and_columns_say_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for terminal in (False, True):
        console = PlainConsole(file=io.StringIO(), force_terminal=terminal)
        assert console.width == 60
        assert len(row(console)) <= 60
    assert PlainConsole(file=io.StringIO(), width=70).width == 70
