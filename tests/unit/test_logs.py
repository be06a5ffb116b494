"""Log lines of a process."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from edldist.observe.logs import install_logging


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    kept = {name: logging.getLogger(name) for name in ("edldist", "edldist_launch")}
    former = {name: (list(it.handlers), it.level, it.propagate) for name, it in kept.items()}
    yield
    for name, it in kept.items():
        it.handlers[:], level, it.propagate = former[name]
        it.setLevel(level)


def test_what_others_call_themselves_is_shown_and_not_obeyed() -> None:
    stream = io.StringIO()
    install_logging("worker \x1b[1m", stream)
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("edldist.any").exception("worker %s\nleft", "\x1b]0;t\x07")
    written = stream.getvalue()
    assert "\x1b" not in written and "\x07" not in written
    assert "worker \ufffd[1m: worker \ufffd]0;t\ufffd\nleft\nTraceback" in written
    assert written.endswith("ValueError: \ufffd[2J\n")


def test_a_line_has_its_date_since_jobs_run_for_days() -> None:
    stream = io.StringIO()
    install_logging("run", stream)
    logging.getLogger("edldist.any").warning("slow")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d WARNING run: slow\n", stream.getvalue())
