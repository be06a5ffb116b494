"""A small process that says of another one that it lives, for as long as that one cannot do so itself.

A forward pass may keep the interpreter's lock for seconds (a loop in Python, a C extension), or a crowded
machine may keep a process from its turns. Then the thread that answers pings and sends heartbeats is silent,
and others would write a worker off that is well. Its voucher notices the silence first, and vouches for it::

     worker's I/O thread                voucher                             coordinator, students
     -------------------                -------                             ---------------------
     a line a few times in each
     time to live --------------------> nothing
     (no line: its lock is held,
      or it gets no CPU)                /proc: is it there, and not stopped?
                                        yes: --- Vouch, over links of its own ---> "it lives"
                                        no: nothing

Who dies, and who notices what:

* the worker, killed: its connections end, which students see by themselves; the voucher reads the end of its
  input (or finds another process, or none, under that id) and ends within ``_LOOK_S``;
* the worker, stopped (``SIGSTOP``, a debugger): no line and no ``Vouch``: silent, and lost within the time to
  live;
* the worker, waiting for ever with the lock held: it lives, for all that anybody can tell; its leases become
  overdue, and others get its tasks;
* the voucher, killed or stopped: nothing, but that the worker is on its own again; said once;
* the whole host, frozen or cut off: both are silent.

It vouches for what /proc says, and for nothing else: not for the network between the worker and anybody, nor
that the worker's threads are well.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from edldist.errors import EdlDistError
from edldist.keys.pair import COORDINATOR, STUDENT, TEACHER
from edldist.secret_names import helper_environment
from edldist.signals import ASKING
from edldist.wire.messages import Vouch
from edldist.wire.process import route_of
from edldist.wire.transport import Link, Poller
from edldist.wire.zmq.keys import socket_keys
from edldist.wire.zmq.transport import ZmqTransport

__all__ = ["Voucher", "lives", "main", "start_ticks"]

logger = logging.getLogger(__name__)

PROC = Path("/proc")
_LOOK_S = 0.25
_MOST_READ = 64
_STOPPED = frozenset("Tt")
_DEAD = frozenset("ZXx")


class Voucher:
    """The process that vouches for this one. ``alive`` is for one thread, between ``start`` and ``close``."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._told = b""

    def start(self, member: str, process: str, coordinator: str = "") -> None:
        """Begin. Where there is no /proc, or no process can be started, nobody vouches.

        Args:
            member: the id of this worker.
            process: the name of its process (``edldist.wire.process``).
            coordinator: its address; those of all others are of students.
        """
        ticks = start_ticks(os.getpid())
        if not ticks:
            return
        # Isolated, and importing from where this process does: a file of any module's name may lie here.
        code = "import sys; sys.path[:] = sys.argv[1].split(':'); import edldist.wire.voucher as v; v.main()"
        command = [sys.executable, "-I", "-c", code, ":".join(sys.path)]
        told = [member, process, coordinator, str(os.getpid()), str(ticks)]
        try:
            self._child = subprocess.Popen(
                [*command, *told],
                env=helper_environment(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as exc:
            logger.warning("nobody vouches for this worker while its model keeps it busy: %s", exc.strerror)
            return
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._child is None else self._child.pid

    def alive(self, addresses: Collection[str], ttl_s: float) -> None:
        """This process says that it lives, to its voucher.

        Args:
            addresses: of those who are to know.
            ttl_s: the shortest silence after which any of them takes it for lost.
        """
        child = self._child
        if child is None or child.stdin is None:
            return
        told = json.dumps([ttl_s, sorted(addresses)]).encode()
        # It begins with an end, too: should only a part of one have found room, no other is lost with it.
        line = b"\n" if told == self._told else b"\n" + told + b"\n"
        try:
            if os.write(child.stdin.fileno(), line) < len(line):
                raise BlockingIOError
        except BlockingIOError:  # it is stopped, or has no time: it will read what is there
            self._told = b""
        except OSError:
            self._child = None
            child.stdin.close()
            logger.warning(
                "the process that vouches for this worker is gone (exit code %d): a pass that keeps the "
                "interpreter for longer than heartbeat_ttl_s counts as silence from now on",
                child.wait(),
            )
        else:
            self._told = told

    def close(self) -> None:
        """End it."""
        child, self._child = self._child, None
        if child is not None and child.stdin is not None:
            child.stdin.close()
            child.kill()  # it holds nothing, and may be stopped
            child.wait()


def start_ticks(pid: int) -> int:
    """When a process of this machine started, in the kernel's count; 0 if that cannot be told."""
    state = _stat(pid)
    return int(state[19]) if len(state) > 19 else 0


def lives(pid: int, ticks: int) -> bool | None:
    """Whether that very process is there and runs; None if it is gone."""
    state = _stat(pid)
    if len(state) <= 19 or int(state[19]) != ticks or state[0] in _DEAD:
        return None
    return state[0] not in _STOPPED


def _stat(pid: int) -> Sequence[str]:
    """What /proc says of a process, from its state on."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ()


class _Links:
    """Links that are there only while they are needed."""

    def __init__(self, identity: str, coordinator: str) -> None:
        self._identity = identity
        self._coordinator = coordinator
        self._poller: Poller | None = None
        self._links: dict[str, Link] = {}

    def say(self, message: Vouch, addresses: Collection[str]) -> None:
        if self._poller is None:
            self._poller = ZmqTransport(tensors=False, keys=socket_keys(TEACHER)).poller()
        for gone in self._links.keys() - set(addresses):
            self._links.pop(gone).close(at_once=True)
        for address in addresses:
            try:
                if address not in self._links:
                    to = COORDINATOR if address == self._coordinator else STUDENT
                    self._links[address] = self._poller.connect(address, self._identity, to)
                link = self._links[address]
                for _ in range(_MOST_READ):  # nobody answers a vouch; who floods it is not listened to
                    if link.receive() is None:
                        break
                link.send(message)
            except EdlDistError:
                continue  # it cannot be reached like this; the worker says so

    def close(self) -> None:
        if self._poller is not None:
            self._poller.close(at_once=True)
        self._poller, self._links = None, {}


def main() -> None:
    """The voucher itself: ``MEMBER PROCESS COORDINATOR PID TICKS``, and on its input lines of the worker."""
    for number in ASKING:
        signal.signal(number, signal.SIG_IGN)  # it ends with its worker, which may have some time to drain
    member, process, coordinator, pid, ticks = sys.argv[-5:]
    links = _Links(f"{route_of(member, process)}~voucher", coordinator)
    told: bytes = b""
    addresses: list[str] = []
    ttl_s = 3.0
    heard = time.monotonic()
    vouching = False
    try:
        while True:
            ready, _, _ = select.select([0], [], [], min(_LOOK_S, ttl_s / 6))
            state = lives(int(pid), int(ticks))
            if state is None:
                return
            if ready:
                read = os.read(0, 1 << 16)
                if not read:
                    return
                heard = time.monotonic()
                *lines, told = (told + read).split(b"\n")
                for line in filter(None, lines):
                    with contextlib.suppress(ValueError):
                        ttl_s, addresses = json.loads(line)
                if vouching:
                    vouching = False
                    links.close()
            elif state and addresses and time.monotonic() - heard > ttl_s / 3:
                vouching = True
                links.say(Vouch(id=member, process=process), addresses)
    finally:
        links.close()
