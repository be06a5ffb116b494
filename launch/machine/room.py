"""Whether this machine has room for the processes that are about to start on it.

Hundreds of processes too many take a machine down before any of them could fail, and people who sit at it
cannot end them any more. So whoever starts several asks here first.
"""

from __future__ import annotations

from collections.abc import Mapping

from edldist.errors import ConfigError
from edldist.wire.shm.allowance import memory_bytes

__all__ = ["LEAST_PROCESS_BYTES", "check_room", "most_processes"]

LEAST_PROCESS_BYTES = 64 << 20
"""Less than half of what a process that has imported torch and done nothing has for itself (140 MiB)."""


def most_processes(memory: int | None = None) -> int:
    """How many processes fit into this machine's memory if each takes the least that such a process takes.

    Args:
        memory: bytes there are; None to ask the system, and the container's limit.
    """
    return max(1, (memory_bytes() if memory is None else memory) // LEAST_PROCESS_BYTES)


def check_room(processes: Mapping[str, int], memory: int | None = None) -> None:
    """Refuse what cannot fit into this machine's memory.

    Args:
        processes: how many are to start, by what asks for them.
        memory: bytes there are; None to ask the system, and the container's limit.

    Raises:
        ConfigError: they would not fit if each took the least that such a process takes.
    """
    memory = memory_bytes() if memory is None else memory
    total, fit = sum(processes.values()), most_processes(memory)
    if total <= fit:
        return
    listed = ", ".join(f"{count} of {what}" for what, count in processes.items())
    raise ConfigError(
        f"this machine has no room for {total} processes ({listed}): each takes at the very least "
        f"{LEAST_PROCESS_BYTES >> 20} MiB, and there are {memory >> 20} MiB. "
        f"Start {fit} at most here, or use more machines"
    )
