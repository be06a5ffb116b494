"""By which address others reach a coordinator, as its address file tells them. Pure."""

from __future__ import annotations

from edldist.address import Address, parse_address
from edldist.errors import ConfigError

__all__ = ["reached_at"]


def reached_at(url: str, advertise: str | None) -> str:
    """The address that others are told.

    Args:
        url: where it listens.
        advertise: the host by which others reach this one, where that is every interface of it.

    Raises:
        ConfigError: the address is that of every interface of this host, and of no host for anybody else.
    """
    address = parse_address(url, "address")
    if not address.is_everywhere:
        return url
    if advertise is None:
        raise ConfigError(
            f"the coordinator listens at {url}, which says to nobody where: with --address-file, bind an "
            "address of this host, or give --advertise one"
        )
    return Address(advertise, address.port).url
