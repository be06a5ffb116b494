"""Who comes to the door of the ranks' store: strangers that say anything, and a node that knows the word."""

from __future__ import annotations

import contextlib
import hmac
import socket
import threading
import time

from edldist.meeting.store_door import MAGIC, Door, Way, new_word
from tests.fuzz.strangers import PATIENCE_S, written
from tests.fuzz.streams import http, zmtp
from tests.fuzz.words import Words

EVERY_S = 0.1
AT_ONCE = 8
PROOF_BYTES = 32
CHALLENGE_BYTES = len(MAGIC) + PROOF_BYTES


class Store:
    """Stands where torch's store would, and says back what it hears; ``reached`` counts who got there."""

    def __init__(self) -> None:
        self.reached = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                connection, _ = self._listener.accept()
                self.reached += 1
                with contextlib.suppress(OSError), connection:
                    while chunk := connection.recv(1 << 12):
                        connection.sendall(chunk)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


class Knocks:
    """A door in this process, and strangers before it: none is to get in, whatever he says."""

    name = "the store's door"

    def __init__(self, words: Words) -> None:
        self._words = words
        self._store = Store()
        self.door = Door(new_word(), lambda: self._store.port)
        self._next = 0.0
        self._honest = 0

    def send(self) -> int:
        now = time.monotonic()
        if now < self._next:
            return 0
        self._next = now + EVERY_S
        for _ in range(AT_ONCE):
            self.knock()
        return AT_ONCE

    def knock(self) -> None:
        """One connection: who does not listen first, or who answers what he was asked, but not rightly."""
        rng = self._words.rng
        place = ("127.0.0.1", self.door.port)
        if rng.random() < 0.5:
            said = rng.choice((rng.randbytes(rng.randint(0, 200)), bytes(64), zmtp(self._words), MAGIC * 9))
            written(place, rng.choice((said, http(self._words))), rng)
            return
        with contextlib.suppress(OSError), socket.create_connection(place, timeout=PATIENCE_S) as connection:
            asked = b""
            while len(asked) < CHALLENGE_BYTES:
                if not (chunk := connection.recv(CHALLENGE_BYTES - len(asked))):
                    return
                asked += chunk
            answer = self._answer(asked[len(MAGIC) :])
            connection.sendall(answer)
            if len(answer) == 2 * PROOF_BYTES:  # of a shorter one it waits for the rest
                connection.settimeout(PATIENCE_S)
                assert not connection.recv(1 << 12), "the door proved itself to a stranger"

    def _answer(self, chosen: bytes) -> bytes:
        rng = self._words.rng
        word, who = rng.choice(("", "0" * 32, new_word())), rng.choice((b"way", b"door", b""))
        proof = rng.choice(
            (
                hmac.digest(word.encode(), MAGIC + who + chosen, "sha256"),
                chosen,  # what it said itself
                hmac.digest(self.door.word.encode(), MAGIC + who + rng.randbytes(PROOF_BYTES), "sha256"),
                hmac.digest(self.door.word.encode(), MAGIC + b"door" + chosen, "sha256"),
            )
        )
        return (proof + rng.randbytes(PROOF_BYTES))[: rng.choice((64, 64, 64, 63, 33, 32, 1))]

    def check(self) -> None:
        """Nobody got in but who knows the word, and nothing is kept of the others.

        Raises:
            AssertionError: it is not so.
        """
        assert self._store.reached == self._honest, "a stranger reached the store"
        way = Way("127.0.0.1", self.door.port, self.door.word)
        try:
            with socket.create_connection(("127.0.0.1", way.port), timeout=PATIENCE_S) as connection:
                connection.sendall(b"ping")
                assert connection.recv(4) == b"ping"
        finally:
            way.close()
        self._honest += 1
        assert self._store.reached == self._honest
        deadline = time.monotonic() + PATIENCE_S
        while self.door.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not self.door.connections, "connections of strangers are kept"

    def close(self) -> None:
        self.door.close()
        self._store.close()
