"""Who may write to a checkpoint directory: the claim of one group of ranks, and what supersedes it. Pure.

A group may have been written off and not know it: its host is cut off from the coordinator, or frozen, while
the others form the next generation and train on from the last checkpoint. So whoever takes a directory says
in it who it is, and looks there again before it writes. Of two generations of one run the later one has the
directory, whether the former lives or not::

    generation 3 claims --> saves, saves ...   its host is cut off   ... would save: superseded, leaves
                                                        |
                                        generation 4 claims --> saves, saves ...

Groups of which nobody can tell which is the later, those of two jobs by mistake, have only the directory's
lock between them; without locks the last to claim it has it, and the other is told when it saves.
"""

from __future__ import annotations

import os
import secrets
import socket

import msgspec

from edldist.errors import CheckpointError
from edldist.ranks.placement import term

__all__ = ["GIVE_UP", "REGROUP", "Claim", "SupersededError"]

REGROUP = "regroup"
GIVE_UP = "give up"


class Claim(msgspec.Struct, frozen=True):
    """What one rank 0 says about the directory that it takes.

    Attributes:
        nonce: tells this claim from every other.
        pid, host: of the process, for people.
        run, generation: of which the group is, where somebody counts the generations of a run; else empty and
            0.
    """

    nonce: str
    pid: int
    host: str
    run: str = ""
    generation: int = 0

    @classmethod
    def own(cls) -> Claim:
        """A claim of this process's present group."""
        run, generation = term()
        return cls(secrets.token_hex(8), os.getpid(), socket.gethostname(), run, generation)

    def supersedes(self, other: Claim) -> bool:
        """Whether the group of the other claim was over when this one's was formed."""
        return bool(self.run) and self.run == other.run and self.generation > other.generation

    def encode(self) -> bytes:
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> Claim | None:
        """The claim in a file; None if there is none, as where it could not be written on a full disk."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.DecodeError:
            return None

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class SupersededError(CheckpointError):
    """Another group has taken the directory since; nothing may be written there any more.

    Attributes:
        verdict: ``REGROUP`` if it is a later generation of the same run, of which this process may become a
            part; ``GIVE_UP`` if it is somebody else.
    """

    def __init__(self, url: str, ours: Claim, theirs: Claim) -> None:
        self.verdict = REGROUP if theirs.supersedes(ours) else GIVE_UP
        if self.verdict == REGROUP:
            message = (
                f"generation {ours.generation} of run {ours.run} was written off: {theirs}, of generation "
                f"{theirs.generation}, has the checkpoint directory {url} now"
            )
        else:
            message = (
                f"the checkpoint directory {url} was taken by another job ({theirs}) after this one: give "
                "each job its own"
            )
        super().__init__(message)
