"""What a command that works for hours does first."""

from __future__ import annotations

__all__ = ["begin"]


def begin(prefix: str) -> None:
    """Log with a prefix, and go on whatever becomes of the terminal: for commands that work for hours."""
    from edldist.observe.logs import install_logging
    from edldist.observe.streams import install_steady_streams

    install_steady_streams()
    install_logging(prefix)
