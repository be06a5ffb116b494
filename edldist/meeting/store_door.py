"""The way to the store of a generation, for ranks on other nodes: a door that admits nodes of the run alone.

torch's store asks nobody who he is. So it is on the loopback interface of the node with rank 0
(``rank_store``), and ranks find it on their own::

    rank ──► Way, on this node's loopback ──── proof ───► Door, at an address of rank 0's node ──► store

Each node makes up a word for its door, and reports it to the coordinator, which tells it to the nodes of the
generation and to nobody else: over connections that are proven and sealed where the job has keys. Both ends
prove that they know it (HMAC-SHA256 over 32 bytes that the other chose), and neither shows it. What follows
is as it was: torch's bytes, in the clear, like those of gloo.

::

    door ──► way    MAGIC and 32 random bytes
    way ──► door    HMAC of them, and 32 random bytes
    door ──► way    HMAC of these
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable

__all__ = ["Door", "Way", "new_word"]

logger = logging.getLogger(__name__)

MAGIC = b"edldist store 1\n"
PROVE_S = 5.0
"""How long either end may take to prove that it knows the word."""
RETRY_S = 0.1
OPEN_S = 300.0
"""How long a rank waits for a door: as torch's store does for its server."""
MOST_UNPROVEN, MOST_OF_ONE_HOST = 256, 64
"""Connections that have proven nothing yet, in all and from one address; further ones are closed at once."""
_BYTES = 32
_BLOCK = 1 << 16


def new_word() -> str:
    """A word that nobody guesses."""
    return secrets.token_hex(_BYTES // 2)


class _Loop:
    """An event loop in a thread of its own, with one listener."""

    def __init__(self, listener: socket.socket, name: str) -> None:
        self.port: int = listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, args=(listener,), name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._loop.close()
            listener.close()
            raise

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._tasks)

    def close(self) -> None:
        """Listen no more, and end every connection."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._take, sock=listener))
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            with contextlib.suppress(Exception):
                self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
            self._loop.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError, asyncio.TimeoutError):
            pass  # whoever was there is gone, or this end is
        finally:
            self._tasks.discard(task)
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Door(_Loop):
    """Listens on every interface, and lets those in who know the word.

    Args:
        word: of this door.
        target: the port on the loopback interface to which it leads now; None: to nowhere yet.
    """

    def __init__(self, word: str, target: Callable[[], int | None]) -> None:
        self.word = word
        self._target = target
        self._unproven: Counter[str] = Counter()  # by address
        self._turned_away = 0
        super().__init__(_everywhere(), "edldist-store-door")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port, peer = self._target(), writer.get_extra_info("peername")
        if port is None or peer is None or not self._has_room(host := _plain(peer[0])):
            return  # whoever has business here tries again
        self._unproven[host] += 1
        try:
            proven = await asyncio.wait_for(self._prove(reader, writer), PROVE_S)
        except (asyncio.TimeoutError, asyncio.IncompleteReadError):
            proven = False
        finally:
            self._unproven[host] -= 1
            self._unproven += Counter()  # without those that have none left
        if not proven:
            self._turned_away += 1
            if self._turned_away == 1:
                logger.warning("turned away %s, who is no node of this run (others are only counted)", host)
        else:
            await _join(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

    def _has_room(self, host: str) -> bool:
        return self._unproven.total() < MOST_UNPROVEN and self._unproven[host] < MOST_OF_ONE_HOST

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        mine = secrets.token_bytes(_BYTES)
        writer.write(MAGIC + mine)
        await writer.drain()
        proof, theirs = await reader.readexactly(_BYTES), await reader.readexactly(_BYTES)
        if not hmac.compare_digest(proof, _proof(self.word, b"way", mine)):
            return False
        writer.write(_proof(self.word, b"door", theirs))
        await writer.drain()
        return True


class Way(_Loop):
    """Listens on the loopback interface, and leads to a door on another node.

    Args:
        host, port: of the door.
        word: of that door.
    """

    def __init__(self, host: str, port: int, word: str) -> None:
        self._door = (host, port)
        self._word = word
        super().__init__(socket.create_server(("127.0.0.1", 0)), "edldist-store-way")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        deadline = asyncio.get_running_loop().time() + OPEN_S
        while asyncio.get_running_loop().time() < deadline:
            found = await self._through()
            if found is not None:
                await _join(reader, writer, *found)
                return
            await asyncio.sleep(RETRY_S)  # that node may not know of its generation yet
        logger.warning("no way to the store of this run's ranks at %s:%d within %.0f s", *self._door, OPEN_S)

    async def _through(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        with contextlib.suppress(OSError, EOFError, asyncio.TimeoutError):
            reader, writer = await asyncio.wait_for(asyncio.open_connection(*self._door), PROVE_S)
            try:
                if await asyncio.wait_for(self._prove(reader, writer), PROVE_S):
                    return reader, writer
            except BaseException:
                writer.close()
                raise
            writer.close()
        return None

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if await reader.readexactly(len(MAGIC)) != MAGIC:
            return False
        theirs, mine = await reader.readexactly(_BYTES), secrets.token_bytes(_BYTES)
        writer.write(_proof(self._word, b"way", theirs) + mine)
        await writer.drain()
        return hmac.compare_digest(await reader.readexactly(_BYTES), _proof(self._word, b"door", mine))


def _proof(word: str, who: bytes, chosen: bytes) -> bytes:
    return hmac.digest(word.encode(), MAGIC + who + chosen, "sha256")


def _plain(host: str) -> str:
    """An address as people write it: an IPv4 one has a prefix where a socket takes both kinds."""
    return host.removeprefix("::ffff:")


def _everywhere() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


async def _join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Pass on what either end says, until both have said all, or one is gone."""
    ways = [
        asyncio.ensure_future(_pass_on(reader, other_writer)),
        asyncio.ensure_future(_pass_on(other_reader, writer)),
    ]
    try:
        await asyncio.gather(*ways)
    finally:
        for way in ways:
            way.cancel()
        other_writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while block := await reader.read(_BLOCK):
        writer.write(block)
        await writer.drain()
    writer.write_eof()
