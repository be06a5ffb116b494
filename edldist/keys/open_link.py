"""What may be said without keys: on this machine anything, beyond it only where somebody says so.

Without keys whoever reaches a port may take part in the job, and whoever is on the way may listen. On the
loopback interface that is nobody but this machine's own processes, and paths (``ipc://``) are as private as
their folders. Everything that listens or connects without keys asks here first; with keys nobody has to.

::

    with keys ................................................. sealed
    without, on the loopback interface or ipc:// ............... local
    without, beyond it ......................................... refused
    without, beyond it, with --insecure (EDLDIST_INSECURE=1) .... insecure, which is said
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping

from edldist.address import is_loopback, listening_hosts, parse_address, why_unresolved
from edldist.errors import ConfigError

__all__ = [
    "INSECURE",
    "INSECURE_VARIABLE",
    "KEYS_VARIABLE",
    "LOCAL",
    "SEALED",
    "check_open",
    "check_reach",
    "is_insecure",
    "link_of",
    "link_words",
    "say_insecure",
]

logger = logging.getLogger(__name__)

KEYS_VARIABLE, INSECURE_VARIABLE = "EDLDIST_KEYS", "EDLDIST_INSECURE"
SEALED, LOCAL, INSECURE = "sealed", "local", "insecure"
"""What a job's connections are: proven and encrypted; this machine's alone; open to the network."""
_WORDS = {
    SEALED: "sealed: both ends of each connection prove their keys",
    LOCAL: "local: on this machine alone, without keys",
    INSECURE: "insecure: whoever reaches a port may take part and listen; edldist keygen",
}
_TCP = "tcp://"
_said: set[str] = set()


def is_insecure(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody allowed connections beyond this machine without keys.

    Raises:
        ConfigError: the variable has another value.
    """
    text = environ.get(INSECURE_VARIABLE, "").strip().lower()
    if text in ("", "0", "false", "no"):
        return False
    if text in ("1", "true", "yes"):
        return True
    raise ConfigError(f"{INSECURE_VARIABLE}={text!r}: use 1 or 0")


def check_open(address: str, doing: str) -> None:
    """Refuse to listen at, or to connect to, an address beyond this machine, for a process without keys.

    Args:
        address: as a socket gets it; names are looked up.
        doing: what is about to be done there: ``listen at``, ``connect to``.

    Raises:
        ConfigError: other machines are at the other end, or may be, and nobody allowed that.
    """
    if not address.startswith(_TCP):
        return
    host = parse_address(address, "address", port_zero=True).host
    if is_loopback(host) or all(map(is_loopback, listening_hosts(host))):
        return
    if is_insecure():
        say_insecure()
        return
    unknown = f"{why}. Besides, this process " if (why := why_unresolved(host)) else ""
    raise ConfigError(
        f"{unknown}will not {doing} {address} without keys: that is beyond this machine, and whoever is "
        "there could take part in the job and read what is said. Make keys (edldist keygen DIR) and start "
        f"everything with --keys DIR, or {KEYS_VARIABLE}=DIR; or allow an open link with --insecure, or "
        f"{INSECURE_VARIABLE}=1"
    )


def check_reach(coordinator: str) -> None:
    """Refuse a coordinator to which this process, as it was started, will not connect: now, and not later.

    Raises:
        ConfigError: as ``check_open``; of one whose address a file says nothing is known yet.
    """
    if not os.environ.get(KEYS_VARIABLE):
        check_open(coordinator, "connect to")


def say_insecure() -> None:
    """Say it, once in a process."""
    words = (
        "--insecure: nothing that goes beyond this machine is sealed; whoever reaches a port of the job may "
        "take part in it, and read what is said (edldist keygen makes keys)"
    )
    if words not in _said:
        _said.add(words)
        logger.warning("%s", words)


def link_of(sealed: bool, addresses: Iterable[str]) -> str:
    """What a job's connections are, by where its processes listen. Looks up no names. Pure.

    Args:
        sealed: whether they have keys.
        addresses: of its coordinator and its members, as they said them; an empty one is of somebody who does
            not listen.
    """
    if sealed:
        return SEALED
    return LOCAL if all(map(_is_local, addresses)) else INSECURE


def link_words(link: str) -> str:
    """What a job's connections are, in a line: the same words wherever people look."""
    return _WORDS.get(link, link)


def _is_local(address: str) -> bool:
    if not address.startswith(_TCP):
        return True
    try:
        return is_loopback(parse_address(address, "address", port_zero=True).host)
    except ConfigError:  # whoever says such a thing may be anywhere
        return False
