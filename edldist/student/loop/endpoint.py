"""Where a rank finds its coordinator, where it listens for workers, and under which name they find it."""

from __future__ import annotations

from edldist.address import EVERYWHERE, Address, is_loopback, local_host_towards, parse_advertised
from edldist.address_file import find_coordinator, parse_coordinator
from edldist.environment import JobEnvironment
from edldist.errors import ConfigError

__all__ = ["coordinator_of", "endpoint"]


def coordinator_of(coordinator: str | None, environment: JobEnvironment) -> str:
    """Where the coordinator is: as was said, or as the job says.

    Raises:
        ConfigError: nobody says.
    """
    address = coordinator or environment.coordinator
    if address is None:
        raise ConfigError(
            "no coordinator: pass coordinator='tcp://HOST:PORT', set EDLDIST_COORDINATOR, "
            "or start the script with 'edldist run' or 'edldist student'"
        )
    return address


def endpoint(coordinator: str, environment: JobEnvironment) -> tuple[str, str | None]:
    """Where to listen, and which host to advertise instead of the bound one.

    Raises:
        ConfigError: the coordinator's address is none, or what is to be advertised.
    """
    parse_coordinator(coordinator, "coordinator")
    if environment.advertise is None:
        towards = find_coordinator(coordinator, "coordinator", environment.connect_timeout_s)
        return Address(local_host_towards(*towards), 0).url, None
    seen_as = parse_advertised(environment.advertise)
    if is_loopback(seen_as.host):  # who is told of it is here, too
        return seen_as.url, seen_as.host
    return Address(EVERYWHERE, seen_as.port).url, seen_as.host
