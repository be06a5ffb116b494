"""What starts a thread when it is imported is not imported ahead of forks, and neither is what imports it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECK = """
from tests.mutation.ahead import without_threads
from tests.mutation.children import Children

children = Children(show=False)
modules = ["unbroken", "threads.all", "needs", "threads", "ends", "broken", "needs.more"]
print(*without_threads(modules, children))
"""
MODULES = {
    "threads/__init__.py": "import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()",
    "threads/all.py": "",
    "needs/__init__.py": "import threads",
    "needs/more.py": "",
    "ends.py": "raise SystemExit",
    "broken.py": "raise SystemError",
    "unbroken.py": "",
}


def test_what_starts_threads_or_ends_processes_is_left_to_those_who_need_it(tmp_path: Path) -> None:
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, timeout=100
    )
    assert done.stdout == "broken unbroken\n", done.stderr
