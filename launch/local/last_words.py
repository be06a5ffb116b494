"""What a program says when it ends by an error: what a person looks for. Pure."""

from __future__ import annotations

import json
import re

__all__ = ["own_error", "refusal"]

MOST_SHOWN = 1_000  # what to do about it stands at the end

# In a traceback the error itself is the line that is not indented; torch puts the rank before each.
_FORMS = (
    re.compile(r"(?:\[rank\d+\]: ?)?error: (?P<said>\S.*)"),
    re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? ERROR +[^:]+: (?P<said>\S.*)"),
    re.compile(
        r"(?:\[rank\d+\]: ?)?(?P<said>(?:\w+\.)*(?P<kind>\w*(?:Error|Exception|Warning|Exit|Interrupt))"
        r"(?:: .*)?)"
    ),
)
_OF_THE_AGENT = ("SignalException", "ChildFailedError")
"""What torchrun's agent raises because its ranks ended."""


_REFUSAL = re.compile(r"^error: (?=\S)", re.MULTILINE)


def refusal(output: str) -> str:
    """All that one of edldist's commands said of the error by which it ended; empty where it said nothing.

    Its last lines may be about what to do.

    Args:
        output: all of it.
    """
    output = "\n".join(map(_plain, output.splitlines()))
    said = list(_REFUSAL.finditer(output))
    return output[said[-1].end() :].strip() if said else ""


def own_error(output: str) -> str:
    """The last error that a program's output names, in one line; empty where it names none.

    Args:
        output: its last lines.
    """
    lines = "\n".join(map(_plain, output.splitlines())).splitlines()
    for number in range(len(lines) - 1, -1, -1):
        for form in _FORMS:
            found = form.fullmatch(lines[number].rstrip())
            if found is not None and found.groupdict().get("kind") not in _OF_THE_AGENT:
                said = " ".join(found["said"].split())
                if said.endswith(":") and number + 1 < len(lines):  # the reason is in the next one
                    said = " ".join([said, *lines[number + 1].split()])
                return said if len(said) <= MOST_SHOWN else f"{said[:MOST_SHOWN]} ..."
    return ""


def _plain(line: str) -> str:
    """A line as it stands in a log that is no JSON: of an object the error that it tells, if it is one."""
    if not line.startswith('{"t":'):
        return line
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(told, dict) or not isinstance(told.get("message"), str):
        return line
    return f"error: {told['message']}" if told.get("level") == "error" else ""
