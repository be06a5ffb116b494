"""What ends a sweep without a verdict."""

from __future__ import annotations

__all__ = ["SweepError"]


class SweepError(SystemExit):
    """Ends the process with a line on standard error and exit code 1, and without the final line of JSON."""
