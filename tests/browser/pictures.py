"""Makes the README's pictures of a job that runs: dashboard, ``edldist top``, curves.png.

It runs the digits demo, in which a worker is killed and another one joins, and looks at it as a person would:
``python -m tests.browser.pictures`` in the project's folder, with Chromium (``make pictures``).
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.terminal_theme import MONOKAI

from edldist_launch.process.tie import tied_command
from edldist_launch.record.eventfile import read_events
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.top.loop import show_once
from tests.browser.chromium import Browser, chromium

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 900.0
LOOK_S = 0.5
ARGUMENTS = "student.args=[--epochs, 24, --batch-size, 64, --lr, 0.01, --temperature, 4, --seed, 0]"
"""A run of half the length: curves enough to look at."""
SHARE = 0.7
"""How far the job is when it is looked at: the worker that was killed is back, the guest is here."""
WIDTH = 1200
COLUMNS = 100
PAGE = (
    "<!doctype html><meta charset=utf-8><body style='margin:0;background:#0c0c0c'>"
    "<pre id=top style='display:inline-block;margin:0;padding:18px 22px;color:#d9d9d9;"
    'font:15px/1.25 "DejaVu Sans Mono",monospace\'>{}</pre>'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", help="default: docs/images")
    target = parser.parse_args().output
    binary = chromium()
    if binary is None:
        raise SystemExit("no Chromium here: tests/browser/install.sh installs Debian's")
    with tempfile.TemporaryDirectory(prefix="edldist-pictures-") as folder:
        output = Path(folder) / "digits"
        command = [sys.executable, "examples/digits/demo.py", "--output", str(output), "--set", ARGUMENTS]
        demo = subprocess.Popen(tied_command(command, os.getpid()), cwd=ROOT)
        try:
            address, page = until(lambda: coordinator(output), "the coordinator", demo)
            until(lambda: far_enough(page), f"{SHARE:.0%} of the steps", demo)
            frame = terminal(address)
            with Browser(binary) as browser:
                dashboard(browser, page, target)
                draw(browser, frame, target)
            if demo.wait(WITHIN_S) != 0:
                raise SystemExit("the demo failed")
            shutil.copy(output / "curves.png", target / "curves.png")
        finally:
            demo.terminate()
            demo.wait()


def until(attempt: Any, what: str, demo: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if found := attempt():
            return found
        if demo.poll() is not None:
            raise SystemExit(f"the demo ended before {what}")
        time.sleep(LOOK_S)
    raise SystemExit(f"{what} did not come within {WITHIN_S:.0f} s")


def coordinator(output: Path) -> tuple[str, str] | None:
    """Where members and browsers reach it, once it has said so."""
    if not (output / "events.jsonl").exists():
        return None
    events = read_events(output / "events.jsonl")
    started = [each for each in events if each["event"] == "coordinator_started"]
    return (str(started[-1]["address"]), str(started[-1]["http"])) if started else None


def far_enough(page: str) -> bool:
    """Whether the job has made so many of its steps."""
    connection = http.client.HTTPConnection(page, timeout=10)
    try:
        connection.request("GET", "/history")
        places = json.loads(connection.getresponse().read())["progress"]
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return any(place["steps"] and place["step"] >= SHARE * place["steps"] for place in places)


def dashboard(browser: Browser, page: str, target: Path) -> None:
    """The page as far as its events, in both colours."""
    browser.size(WIDTH, 900, scale=1.5)
    browser.go(f"http://{page}/")
    browser.until("document.querySelectorAll('#charts figure').length > 4", "the charts")
    browser.until("document.querySelectorAll('#timeline svg').length", "the events")
    for scheme, name in (("light", "dashboard.png"), ("dark", "dashboard-dark.png")):
        browser.media(prefers_color_scheme=scheme)
        browser.picture(target / name, down_to="#timeline")


def terminal(address: str) -> str:
    """One frame of edldist top, as HTML."""
    console = PlainConsole(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", width=COLUMNS, record=True
    )
    show_once(lambda: address, console)
    return console.export_html(theme=MONOKAI, inline_styles=True, code_format="{code}")


def draw(browser: Browser, frame: str, target: Path) -> None:
    """The frame as a picture."""
    document = target / ".top.html"
    document.write_text(PAGE.format(frame), encoding="utf-8")
    try:
        browser.media()
        browser.go(document.absolute().as_uri())
        browser.until("document.querySelector('#top')", "the frame")
        browser.picture(target / "top.png", down_to="#top", across="#top")
    finally:
        document.unlink()


if __name__ == "__main__":
    main()
