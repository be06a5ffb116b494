"""What strangers write to a port: ZMTP that is not quite it, and HTTP that is less so."""

from __future__ import annotations

import random
import struct

from edldist.wire.messages import PROTOCOL
from tests.fuzz.words import Words

PATHS = ["/", "/status", "/metrics", "/history", "/healthz", "/scaling/teacher", "/scaling/%2e%2e", "/drain"]


def greeting(mechanism: bytes = b"NULL", minor: int = 0) -> bytes:
    """The first 64 bytes of a connection (ZMTP 3.0, https://rfc.zeromq.org/spec/23)."""
    return b"\xff" + bytes(8) + b"\x7f\x03" + bytes([minor]) + mechanism.ljust(20, b"\0") + bytes(32)


def frame(flags: int, body: bytes, announced: int | None = None) -> bytes:
    """One frame; ``announced`` is the length that it claims to have."""
    size = len(body) if announced is None else announced
    head = (
        struct.pack(">BQ", flags | 2, size) if size > 255 or announced is not None else bytes([flags, size])
    )
    return head + body


def ready(kind: bytes = b"DEALER") -> bytes:
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
    return frame(4, body)


def hello(rng: random.Random) -> bytes:
    """The first command of CURVE, with a key that nobody knows."""
    body = b"\x05HELLO\x01\x00" + bytes(72) + rng.randbytes(32) + bytes(8) + rng.randbytes(80)
    return frame(4, body)


def zmtp(words: Words) -> bytes:
    """All that one connection writes."""
    rng = words.rng
    draw = rng.randrange(10)
    if draw == 0:
        return rng.randbytes(rng.randint(0, 2_000))
    if draw == 1:
        return greeting()[: rng.randint(0, 64)]
    if draw == 2:
        return words.bent(greeting(rng.choice((b"NULL", b"CURVE", b"PLAIN", b"\xff" * 20))))
    if draw == 3:  # a handshake of any length
        return greeting() + frame(
            4, rng.randbytes(rng.randint(0, 300)), rng.choice((None, 2**63, 2**40, 2**20))
        )
    if draw == 4:
        return greeting() + words.bent(ready(rng.choice((b"DEALER", b"ROUTER", b"PUB", b"x" * 200))))
    if draw == 5:
        return greeting(b"CURVE") + words.bent(hello(rng))
    start = greeting() + ready()
    if draw == 6:
        return start + frame(rng.randrange(256), b"", rng.choice((2**63, 2**64 - 1, 2**40, 2**31, 2**20)))
    if draw == 7:
        return start + b"\x01\x00" * rng.randint(1, 20_000) + rng.choice((b"", b"\x00\x00"))
    if draw == 8:
        return start + b"".join(
            frame(rng.choice((0, 1)), rng.randbytes(rng.randint(0, 300))) for _ in range(rng.randint(1, 30))
        )
    return start + words.bent(frame(0, PROTOCOL.preface + rng.randbytes(20)))


def http(words: Words) -> bytes:
    """All that one connection asks."""
    rng = words.rng
    draw = rng.randrange(8)
    path = rng.choice(PATHS)
    if draw == 0:
        return rng.randbytes(rng.randint(0, 2_000))
    if draw == 1:
        return b"GET " + rng.choice(
            (b"/../../etc/passwd", b"//etc/passwd", b"/%00", b"/static/..%2f..%2fx", b"*")
        )
    if draw == 2:
        return b"GET /" + b"a" * rng.randint(1, 70_000)
    if draw == 3:
        lines = b"".join(
            b"h%d: %s\r\n" % (n, rng.randbytes(5).hex().encode()) for n in range(rng.randint(0, 300))
        )
        return b"GET /status HTTP/1.1\r\n" + lines + rng.choice((b"", b"\r\n"))
    method = rng.choice(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get", "\x00"))
    token = rng.choice(("Bearer x", "Bearer", "Basic eDp5", "\xff", "Bearer " + "x" * 3_000))
    request = f"{method} {path} HTTP/1.{rng.randint(0, 1)}\r\nHost: h\r\nAuthorization: {token}\r\n"
    request += rng.choice(
        ("", "Content-Length: 99999999\r\n", "Transfer-Encoding: chunked\r\n", "X-Edldist: x\r\n")
    )
    whole = (request + "\r\n").encode("latin-1") * rng.choice((1, 1, 1, 20))
    return words.bent(whole) if draw < 6 else whole
