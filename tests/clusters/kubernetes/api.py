"""The cluster's API, for what a test itself does on the node."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Api", "Object"]

Object = dict[str, Any]


class Api:
    """Requests to a cluster.

    Args:
        config: a kubeconfig of one cluster and one token.
    """

    def __init__(self, config: Path) -> None:
        read = yaml.safe_load(config.read_text(encoding="utf-8"))
        self._server = read["clusters"][0]["cluster"]["server"]
        self._token = read["users"][0]["user"]["token"]
        self._trust = ssl.create_default_context()
        self._trust.check_hostname, self._trust.verify_mode = False, ssl.CERT_NONE

    def ask(self, path: str, method: str = "GET", given: Object | None = None, kind: str = "json") -> Object:
        """The answer to a request.

        Raises:
            OSError: there is none, or it is refused.
        """
        request = urllib.request.Request(
            self._server + path, None if given is None else json.dumps(given).encode(), method=method
        )
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", f"application/{kind}")
        with urllib.request.urlopen(request, context=self._trust, timeout=10) as answer:
            said: Object = json.load(answer)
        return said
