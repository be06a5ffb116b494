"""Ask a hub until it answers. Imports no torch.

::

    asked ──its answer───────────────────────────────────────► answered
     ▲ │ ├──the hub refuses it────────────────────────────────► RefusedError
     │ │ └──time is up────────────────────────────────────────► CoordinatorUnreachableError
     └─┴──the link lost what it was given (``Link.renewed``)

A link takes a question in before anybody is there, and loses it where the connection has to be made anew: the
hub does not know this process's key yet, say, since it reads the newest keys a second after they were made.
What was asked twice, or in vain, may be answered later. So the next question goes by a link of a new name,
which hears no answer to a former one.
"""

from __future__ import annotations

import os
import time
import uuid
from typing import TypeVar

from edldist.errors import CoordinatorUnreachableError, RefusedError
from edldist.keys.open_link import KEYS_VARIABLE
from edldist.wire.messages import Message, Refused
from edldist.wire.transport import Link, Received, Transport, closed_on_error

__all__ = ["Asking", "no_answer"]

_TURN_S = 0.25
"""How often a link is looked after that hears nothing: it may have to be made anew."""

_Answer = TypeVar("_Answer", bound=Message)


class Asking:
    """A link for questions. Owned by one thread; survives coordinator restarts.

    Args:
        address: of the coordinator: ``tcp://host:port``, or ``file:PATH``.
        name: with which the link's names begin.
        transport: the wire.
    """

    def __init__(self, address: str, name: str, transport: Transport) -> None:
        self._address = address
        self._name = name
        with closed_on_error(transport.poller()) as self._poller:
            self._link = self._connect()
        self._may_be_answered = False  # another time, or late

    def ask(self, question: Message, kind: type[_Answer], timeout_s: float) -> _Answer:
        """The answer of that kind. Whoever is asked may hear the question twice.

        Raises:
            CoordinatorUnreachableError: there was none within ``timeout_s``.
            RefusedError: the coordinator refuses the question, or this client.
            ProtocolVersionError: the coordinator is of another version.
        """
        deadline = time.monotonic() + timeout_s
        if self._may_be_answered:
            self._link.close(at_once=True)
            self._link = self._connect()
            self._may_be_answered = False
        trouble = ""
        renewed = self._link.renewed
        asked = self._link.send(question)
        while (left_s := deadline - time.monotonic()) > 0:
            self._poller.wait(min(left_s, _TURN_S))
            while time.monotonic() < deadline and (received := self._link.receive()) is not None:
                if isinstance(received.message, kind):
                    return received.message
                if isinstance(received.message, Refused):
                    raise RefusedError(f"coordinator {self._address}: {received.message.reason}")
            trouble = self._link.trouble or trouble
            if asked and self._link.renewed != renewed:
                asked, self._may_be_answered = False, True
            if not asked:
                renewed = self._link.renewed
                asked = self._link.send(question)
        self._may_be_answered = True  # perhaps by a coordinator that starts later
        raise no_answer(self._address, timeout_s, trouble)

    def receive(self, timeout_s: float) -> list[Received]:
        """What comes besides, waited for until there is something."""
        self._poller.wait(timeout_s)
        messages = []
        while (received := self._link.receive()) is not None:
            messages.append(received)
        return messages

    def close(self) -> None:
        self._poller.close(at_once=True)  # nobody waits for the answer to a question that has not left

    def _connect(self) -> Link:
        return self._poller.connect(self._address, f"{self._name}-{uuid.uuid4().hex[:12]}")


def no_answer(address: str, timeout_s: float, trouble: str) -> CoordinatorUnreachableError:
    """What is raised where a coordinator has not answered.

    Args:
        trouble: that the link tells; empty where it knows of none.
    """
    why = f": {trouble}" if trouble else ". Is it running (edldist coordinator), and is this its address?"
    if not trouble and not os.environ.get(KEYS_VARIABLE):
        # One with keys answers nobody without: on one machine that looks as if nobody were there.
        why += " If its job has keys, give --keys DIR, too"
    return CoordinatorUnreachableError(f"no coordinator answered at {address} within {timeout_s:g} s{why}")
