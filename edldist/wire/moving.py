"""A link to a coordinator that may come back elsewhere: it follows what an address file says.

::

    no address ──file──► linked ──SILENT_S without an answer──► looking ──same address, or none──┐
                           ▲  ▲                                   │  ▲                            │
                           │  └───────────── an answer ───────────┤  └─────── after LOOK_S ───────┘
                           └──────── another address: a new link ─┘

What was sent and not answered is lost with the old link, as it is with a coordinator that is started again at
the same address: those who use the link say everything again until they are answered. A file system may
hang for minutes, and labels flow on meanwhile, so the file is read in a thread that nobody waits for.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Protocol

from edldist.address_file import PREFIX, AddressFile, parse_coordinator
from edldist.errors import ConfigError
from edldist.wire.messages import Message
from edldist.wire.transport import Link, Outgoing, Received

__all__ = ["FileLookup", "Lookup", "MovingLink", "connect"]

logger = logging.getLogger(__name__)

SILENT_S = 4.0
"""More than a default time to live, within which a coordinator answers everyone, in a crowd too."""
LOOK_S = 1.0
_FIRST_LOOK_S = 0.25


class Lookup(Protocol):
    """Tells where a coordinator is, some time after it was asked to."""

    @property
    def address(self) -> str | None:
        """As of the last look that found one; None before."""
        ...

    def look(self, wait_s: float = 0.0) -> None:
        """Look again.

        Args:
            wait_s: how long to wait for what is found; it may come later all the same.
        """
        ...


class FileLookup:
    """Reads an address file.

    Args:
        wake: called, from another thread, when there is something new.
    """

    def __init__(self, file: AddressFile, wake: Callable[[], None]) -> None:
        self.address: str | None = None
        self._file = file
        self._wake = wake
        self._thread: threading.Thread | None = None
        self._trouble = ""

    def look(self, wait_s: float = 0.0) -> None:
        if self._thread is None or not self._thread.is_alive():  # else it still waits for the file system
            thread = threading.Thread(target=self._read, name="edldist-address-file", daemon=True)
            self._thread = thread
            with contextlib.suppress(RuntimeError):  # no thread to be had now: the next look may get one
                thread.start()
        if wait_s and self._thread.is_alive():
            self._thread.join(wait_s)

    def _read(self) -> None:
        try:
            found = self._file.read()
        except (OSError, ConfigError) as exc:
            if str(exc) != self._trouble:
                self._trouble = str(exc)
                logger.warning("cannot find the coordinator by its address file: %s", exc)
            return
        self._trouble = ""
        if found is not None and found.url != self.address:
            self.address = found.url
            self._wake()


class MovingLink:
    """A link to whichever coordinator an address file names. For the thread of its poller.

    Args:
        connect: opens a link to an address.
        lookup: tells where the coordinator is.
        now: the time, in monotonic seconds.
    """

    def __init__(self, connect: Callable[[str], Link], lookup: Lookup, now: Callable[[], float]) -> None:
        self._connect = connect
        self._lookup = lookup
        self._now = now
        self._link: Link | None = None
        self._refused = ""  # why there is none, where the file names an address that cannot be used
        self._garbage = 0  # of former links
        self._renewed = 0  # those, and how many links there were but the first
        self._asked_at: float | None = None  # the first message that nobody answered since
        self._look_at = now() + LOOK_S
        self._followed: str | None = None
        lookup.look(_FIRST_LOOK_S)
        self._follow()

    @property
    def address(self) -> str:
        """Where it leads now; empty while nobody knows."""
        return "" if self._link is None else self._link.address

    @property
    def trouble(self) -> str:
        return self._refused if self._link is None else self._link.trouble

    @property
    def garbage(self) -> int:
        return self._garbage + (0 if self._link is None else self._link.garbage)

    @property
    def renewed(self) -> int:
        return self._renewed + (0 if self._link is None else self._link.renewed)

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        """As for every link; False, too, while nobody knows where the coordinator is."""
        self._follow()
        if self._asked_at is None:
            self._asked_at = self._now()
        return self._link is not None and self._link.send(message, frames)

    def receive(self) -> Received | None:
        self._follow()
        received = None if self._link is None else self._link.receive()
        if received is not None:
            self._asked_at = None
            return received
        now = self._now()
        silent = self._link is None or (self._asked_at is not None and now - self._asked_at > SILENT_S)
        if silent and now >= self._look_at:
            self._look_at = now + LOOK_S
            self._lookup.look()
            self._follow()
        return None

    def close(self, at_once: bool = False) -> None:
        if self._link is not None:
            self._link.close(at_once)

    def _follow(self) -> None:
        """Link to the address that was found last, if it is another one."""
        found = self._lookup.address
        if found is None or found == self._followed:
            return
        former, self._followed = self._followed, found
        try:
            link = self._connect(found)
        except ConfigError as exc:
            self._refused = str(exc)
            logger.warning("%s", exc)
            return
        if former is not None:
            logger.info("the coordinator is at %s now, and was at %s", found, former)
        if self._link is not None:
            self._garbage += self._link.garbage
            self._renewed += 1 + self._link.renewed
            self._link.close(at_once=True)  # nobody reads there what still waits
        self._link = link
        self._asked_at = None


def connect(
    address: str,
    connect_to: Callable[[str], Link],
    lookup: Callable[[AddressFile], Lookup],
    now: Callable[[], float],
) -> Link:
    """A link to an address, or to whom an address file names: what every poller makes of either.

    Raises:
        ConfigError: it is neither.
    """
    if not address.startswith(PREFIX):
        return connect_to(address)
    file = parse_coordinator(address, "cannot connect to it")
    assert isinstance(file, AddressFile)
    return MovingLink(connect_to, lookup(file), now)
