"""Who this process is in its group of student ranks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edldist.environment import whole_number
from edldist.errors import ConfigError

__all__ = [
    "GENERATION_VARIABLE",
    "Placement",
    "generation_name",
    "in_process_group",
    "named_run",
    "placement",
    "term",
]

GENERATION_VARIABLE = "EDLDIST_GENERATION"
"""What edldist's own agent calls its ranks' generation (``generation_name``)."""
_NAMED_OF_RUN = 100


@dataclass(frozen=True, slots=True)
class Placement:
    """One rank among the others.

    Attributes:
        rank: number of this rank, 0 <= rank < world_size.
        world_size: ranks in the group, 1 or more.
        generation: names this very group, from its forming to its next change; the same on all of its
            ranks. Empty for a rank that trains alone, and where nothing tells one group from another.
    """

    # Invariant: 0 <= rank < world_size.
    rank: int
    world_size: int
    generation: str


def placement(environ: Mapping[str, str] = os.environ) -> Placement:
    """Where this process is now: in torch's process group if there is one, else where torchrun put it.

    Asked anew at each use, since a script makes its process group after it was started. Does not import
    torch, so that the coordinator and the launcher may ask.

    Args:
        environ: read for ``RANK`` and ``WORLD_SIZE`` (0 and 1 where they are not set) unless there is a
            process group; and for the generation.

    Raises:
        ConfigError: a variable holds no such number, or a rank that its world has no room for.
    """
    if in_process_group():
        group: Any = sys.modules["torch.distributed"]
        rank, world_size = group.get_rank(), group.get_world_size()
    else:
        rank = whole_number(environ, "RANK", least=0) or 0
        world_size = whole_number(environ, "WORLD_SIZE", least=1) or 1
        if rank >= world_size:
            raise ConfigError(
                f"RANK={rank} is outside WORLD_SIZE={world_size}: ranks count from 0; set both or neither"
            )
    return Placement(rank, world_size, _generation(environ) if world_size > 1 else "")


def in_process_group() -> bool:
    """Whether torch's default process group exists in this process."""
    # Where such a group was made its module is loaded, and loading it here would take a second.
    module: Any = sys.modules.get("torch.distributed")
    return module is not None and bool(module.is_available() and module.is_initialized())


def _generation(environ: Mapping[str, str]) -> str:
    # Every round of torchrun has a store of its own, whose address is set for all ranks; restart counts
    # differ between nodes and name nothing. An address may be given away again, so edldist's own agent adds
    # what it knows of the round. It replaces nothing: torchrun inside of a rank hands it on to other groups.
    address, port = environ.get("MASTER_ADDR", ""), environ.get("MASTER_PORT", "")
    if not (address or port):
        return ""
    name = environ.get(GENERATION_VARIABLE) or environ.get("TORCHELASTIC_RUN_ID", "")
    return f"{name}@{address}:{port}"


def generation_name(run: str, number: int, first: str) -> str:
    """What no other generation is called.

    Of two generations of one run the one with the higher ``number`` is the later. A coordinator that knows
    nothing of a run counts its generations from 1 again, but the process of a first node (``first``) is in
    none of that number twice.
    """
    return f"{named_run(run)}/{number}/{first}"


def named_run(run: str) -> str:
    """As much of a run's id as the names of its generations hold."""
    return run[:_NAMED_OF_RUN]


def term(environ: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """The run that this process's group belongs to, and which of its generations the group is.

    Returns:
        An empty name and 0 where nobody counts them: under another agent than edldist's, and without one.
    """
    run, *numbered = environ.get(GENERATION_VARIABLE, "").rsplit("/", 2)
    if len(numbered) == 2 and numbered[0].isdecimal():
        return run, int(numbered[0])
    return "", 0
