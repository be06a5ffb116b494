"""How a coordinator is to run: what its command line says, checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from edldist.coordinator.scaling.scaling import Bounds, Rules
from edldist.errors import ConfigError

__all__ = ["CoordinatorOptions"]


@dataclass(frozen=True)
class CoordinatorOptions:
    """How to run a coordinator.

    Attributes:
        bind: where members connect; port 0 lets the system choose.
        http: ``HOST:PORT`` of the HTTP status, or None for none.
        http_or_any: whether any free port will do where that one is taken.
        http_hosts: names by which browsers may call it, beside its addresses.
        http_token: what an autoscaler has to know that asks for ``/scaling/GROUP``; None: nothing.
        http_token_all: who asks for any other page but ``/healthz`` has to know it, too.
        heartbeat_interval_s: how often members are to be heard.
        heartbeat_ttl_s: silence after which a member is lost.
        max_students_per_worker: bound on the students that one teacher worker serves.
        scale: by teacher group, the bounds of its number of workers.
        scaling: how that number is decided.
        address_file: path of a JSON file with ``address``, ``http``, ``pid`` and ``incarnation``,
            written when everything is bound.
        history_file: path of the file with the course of the run, which is gone on with; None: it is kept in
            memory alone.
        stages_file: path of the file to which the ways of single tasks through workers are added, or None.
        advertise: the host by which others reach this one, for that file, where every interface is bound.
        sealed: whether its transport has keys, which it tells those who ask.
    """

    bind: str = "tcp://127.0.0.1:7070"
    http: str | None = "127.0.0.1:7071"
    http_or_any: bool = False
    http_hosts: Collection[str] = ()
    http_token: str | None = None
    http_token_all: bool = False
    heartbeat_interval_s: float = 1.0
    heartbeat_ttl_s: float = 3.0
    max_students_per_worker: int = 16
    scale: Mapping[str, Bounds] = field(default_factory=dict)
    scaling: Rules = Rules()
    address_file: str | None = None
    history_file: str | None = None
    stages_file: str | None = None
    advertise: str | None = None
    sealed: bool = False

    @property
    def http_names(self) -> list[str]:
        """By which names browsers may call its pages, beside its addresses."""
        return [*self.http_hosts, *([] if self.advertise is None else [self.advertise])]

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_interval_s < float("inf"):
            raise ConfigError(f"heartbeat_interval_s={self.heartbeat_interval_s} is not above 0")
        if not 2 * self.heartbeat_interval_s <= self.heartbeat_ttl_s < float("inf"):
            raise ConfigError(
                f"heartbeat_ttl_s={self.heartbeat_ttl_s} is below two intervals "
                f"(heartbeat_interval_s={self.heartbeat_interval_s}): one late heartbeat would lose a member"
            )
        if self.http_token is not None and not re.fullmatch(r"[!-~]+", self.http_token):
            raise ConfigError(
                "the HTTP token is empty, or has a space or another character that no header takes"
            )
        if self.http_token_all and self.http_token is None:
            raise ConfigError("--http-token-all: there is no token to ask for: give --http-token-file, too")
        if self.max_students_per_worker < 1:
            raise ConfigError(f"max_students_per_worker={self.max_students_per_worker} is below 1")
