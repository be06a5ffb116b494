"""Queries over edldist's metrics, of all jobs that a Prometheus scrapes or of one."""

from __future__ import annotations

import re

__all__ = ["select", "series_in"]

_METRIC = re.compile(r"(?<![\w:])(edldist_[a-z_]+|up)\b(\{[^}]*\})?")


def series_in(query: str) -> set[str]:
    """The names of edldist's series that a query asks for."""
    return {found[1] for found in _METRIC.finditer(query)} - {"up"}


def select(query: str, matcher: str) -> str:
    """A query that asks for those series alone that a matcher (as ``job="edldist"``) takes."""

    def narrowed(found: re.Match[str]) -> str:
        own = (found[2] or "{}")[1:-1]
        matchers = ", ".join(part for part in (matcher, own) if part)
        return f"{found[1]}{{{matchers}}}" if matchers else found[1]

    return _METRIC.sub(narrowed, query)
