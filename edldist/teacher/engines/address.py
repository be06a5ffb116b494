"""Where an engine is, out of ``vllm:http://HOST:8000#NAME``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from edldist.errors import ConfigError

__all__ = ["EngineAddress"]


@dataclass(frozen=True)
class EngineAddress:
    """An engine, and the model that it serves.

    Attributes:
        reference: as its user wrote it.
        kind: ``vllm`` or ``sglang``.
        secure: whether by https.
        host, port: of its server.
        path: in front of those of the protocol, as a proxy may have; empty for none.
        name: of the served model, or empty for the only one.
    """

    reference: str
    kind: str
    secure: bool
    host: str
    port: int
    path: str
    name: str

    @classmethod
    def parse(cls, reference: str) -> EngineAddress:
        """Read what stands under ``model:``.

        Raises:
            ConfigError: it has no host, or a port that is none, or carries a password or a query.
        """
        kind, _, rest = reference.partition(":")
        url, _, name = rest.partition("#")
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"model {reference}: {exc}") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ConfigError(
                f"model {reference}: use {kind}:http://HOST:PORT, with #NAME behind it where the engine "
                "serves several models"
            )
        if parts.username is not None or parts.password is not None:
            raise ConfigError(
                f"model {kind}:{parts.scheme}://{parts.hostname}: a key in an address is in every process "
                "list and log. Write it to a file, and name that as api_key_file"
            )
        secure = parts.scheme == "https"
        path = parts.path.rstrip("/").removesuffix("/v1")
        return cls(reference, kind, secure, parts.hostname, port or (443 if secure else 80), path, name)

    def __str__(self) -> str:
        """As it is said in messages: kind and URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind} at http{'s' * self.secure}://{host}:{self.port}{self.path}"
