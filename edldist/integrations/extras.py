"""What to say where the library of an integration is not installed."""

from __future__ import annotations

__all__ = ["missing"]


def missing(module: str, extra: str, error: ImportError) -> ImportError:
    """The error of a module that cannot import its library, with what to install.

    Args:
        module: the integration's full name, as ``__name__``.
        extra: the extra of the package that brings the library.
        error: that of the import.
    """
    return ImportError(
        f"{module} cannot be imported: {error}. Install it with: pip install 'edldist[{extra}]' "
        f"(in a clone: '.[{extra}]')"
    )
