"""What is done about an overloaded fleet, in words. Pure."""

from __future__ import annotations

__all__ = ["STEPS"]

STEPS = (
    "nothing",
    "less is read ahead",
    "the store comes first",
    "jobs are degraded",
    "jobs of a lower priority wait",
)
"""By ``Shed.step``; each with all before it."""
