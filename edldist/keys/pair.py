"""A key pair and what it is for."""

from __future__ import annotations

from typing import NamedTuple

import zmq

__all__ = ["COORDINATOR", "OPERATOR", "ROLES", "STUDENT", "TEACHER", "KeyPair", "a_role", "new_pair"]

COORDINATOR, TEACHER, STUDENT, OPERATOR = "coordinator", "teacher", "student", "operator"
ROLES = (COORDINATOR, TEACHER, STUDENT, OPERATOR)
"""What a key may be for. Operators are people and launchers: they look, scale and stop."""


def a_role(role: str) -> str:
    """A role with its article, as messages name whoever has it: ``an operator``."""
    return f"an {role}" if role[:1] in "aeiou" else f"a {role}"


class KeyPair(NamedTuple):
    """A CURVE key pair, in Z85 (40 characters each).

    Attributes:
        role: one of ``ROLES``.
        name: whose it is.
        public: what others know it by.
        secret: what proves it. Not shown where the pair is printed.
    """

    role: str
    name: str
    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(role={self.role!r}, name={self.name!r}, public={self.public!r})"


def new_pair(role: str, name: str) -> KeyPair:
    """A random pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(role, name, public.decode(), secret.decode())
