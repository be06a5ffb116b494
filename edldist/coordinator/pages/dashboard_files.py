"""The dashboard: a page of the coordinator's that draws what ``/status`` and ``/history`` tell.

All of it comes from the package: nothing from elsewhere, which the browser is told to hold it to
(``Content-Security-Policy``). The files are read once, when the coordinator starts, and served by name out of
a dictionary: no path that somebody asks for ever meets a file system.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from edldist.observe.http import Answer

__all__ = ["dashboard"]

FOLDER = "dashboard"
INDEX = "index.html"
KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def dashboard() -> Mapping[str, Answer]:
    """The files of the page by the path at which each is served."""
    pages: dict[str, Answer] = {}
    for file in (files("edldist.coordinator.pages") / FOLDER).iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            answer = Answer(file.read_bytes(), kind, headers=POLICY)
            pages["/" if file.name == INDEX else f"/{FOLDER}/{file.name}"] = answer
    return pages
