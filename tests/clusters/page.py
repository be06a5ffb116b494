"""The page docs/clusters.md as its reader follows it: blocks, commands, and the answers that it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.fault.harness import ROOT

__all__ = ["COMMANDS", "blocks", "pattern", "steps"]

COMMANDS = "console"
"""The kind of a block whose lines, where they begin with ``$``, are commands."""
PAGE = ROOT / "docs" / "clusters.md"


def blocks(engine: str, until: str) -> Iterator[tuple[str, str]]:
    """Kind and text of the blocks in an engine's half of the page.

    Args:
        engine: the title of that half.
        until: the title of the first section in it that is not part of the walk.
    """
    half = PAGE.read_text().partition(f"\n## {engine}\n")[2].partition("\n## ")[0]
    walk, found, _ = half.partition(f"\n### {until}")
    assert found, f"no section {until} about {engine} in {PAGE}"
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", walk, re.MULTILINE | re.DOTALL)


def steps(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a block, with the text that the shell gives it, and the lines that it should print."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        given = re.search(r"<<(\w+)$", lines[0])
        size = 1 if given is None else lines.index(given[1]) + 1
        yield "\n".join(lines[:size]), lines[size:]


def pattern(line: str) -> str:
    """A line of the page, whatever its numbers."""
    return "^" + re.sub(r"\d+", r"\\d+", re.escape(line)) + "$"
