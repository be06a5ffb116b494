"""Which edldist this is."""

from __future__ import annotations

from importlib import metadata

__all__ = ["own_version"]


def own_version() -> str:
    """``edldist 1.2.3``, or words for one that was not installed."""
    try:
        return f"edldist {metadata.version('edldist')}"
    except metadata.PackageNotFoundError:
        return "edldist from a checkout"
