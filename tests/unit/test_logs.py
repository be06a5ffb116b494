"""Log lines of a process."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from edldist.observe.logs import error_line, install_logging, json_wanted


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
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} WARNING run: slow\n", stream.getvalue())


def test_with_log_json_each_record_is_an_object_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_LOG_JSON", "1")
    stream = io.StringIO()
    install_logging("teacher t-\x1b0", stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("edldist.any").exception("in %s", "two\nlines \x1b")
    logging.getLogger("edldist_launch.any").info("fine")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first | {"t": 0, "error": ""} == {
        **{"t": 0, "level": "error", "process": "teacher t-\x1b0", "logger": "edldist.any"},
        **{"message": "in two\nlines \x1b", "error": ""},
    }
    assert first["error"].endswith("ValueError: two\nlines") and "\x1b" not in stream.getvalue()
    assert second["level"] == "info" and "error" not in second and 0 <= second["t"] - first["t"] < 60
    last = json.loads(error_line("it is over", 5.0))
    assert (last["t"], last["level"], last["process"], last["message"]) == (
        *(5.0, "error"),
        *("teacher t-\x1b0", "it is over"),
    )


@pytest.mark.parametrize(
    ("value", "json_"), [("", False), ("0", False), ("false", False), ("1", True), ("yes", True)]
)
def test_a_variable_says_whether_a_log_is_json(
    value: str, json_: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDLDIST_LOG_JSON", value)
    assert json_wanted() is json_
