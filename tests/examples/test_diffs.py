"""What the READMEs of examples say of their plain versions."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(
    path.parent for path in (ROOT / "examples").glob("*/README.md") if "```diff" in path.read_text()
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_diff_in_the_readme_is_that_of_the_two_scripts(example: Path) -> None:
    plain, student = ((example / name).read_text().splitlines() for name in ("plain.py", "student.py"))
    lines = list(difflib.unified_diff(plain, student, n=0, lineterm=""))[2:]
    changes = [line for line in lines if not line.startswith("@@")]
    shown = re.search(r"```diff\n(.*?)```", (example / "README.md").read_text(), re.DOTALL)
    assert shown is not None and shown.group(1).splitlines() == changes
    before, after = (sum(line.startswith(sign) for line in changes) for sign in "-+")
    said = f"{before} lines of the plain script changed into {after}"
    assert said in (ROOT / "docs" / "integrations.md").read_text()
