"""``edldist doctor``: every check, each for itself, and their findings in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from edldist.grace import KILL_S
from edldist_launch.doctor.disk import check_output, check_temporary
from edldist_launch.doctor.engines import check_kubernetes, check_podman, check_slurm
from edldist_launch.doctor.finding import Finding, fail
from edldist_launch.doctor.installation import TORCH_S, check_extras, check_python, check_torch
from edldist_launch.doctor.network import check_clock, check_coordinator, check_name, check_ports
from edldist_launch.doctor.resources import (
    check_cpus,
    check_descriptors,
    check_memory,
    check_processes,
    check_shared_files,
    check_shm,
)

__all__ = ["examine"]

MOST_S = 30.0
Check = Callable[[], Iterable[Finding]]


def examine(output: Path, coordinator: str | None, kill_s: float = KILL_S) -> Iterator[Finding]:
    """Look at everything; findings come in a fixed order, as soon as they are known.

    All checks run at once, and one that hangs (a disk that is gone, a name server that is silent) or that
    raises is a finding too.

    Args:
        output: the folder that a job would write to.
        coordinator: of a job that this machine is to take part in.
        kill_s: how long a job's processes may take to leave.
    """
    checks: list[tuple[str, Check, float]] = [
        ("python", check_python, MOST_S),
        ("torch", check_torch, TORCH_S + MOST_S),
        ("extras", check_extras, MOST_S),
        ("cpus", check_cpus, MOST_S),
        ("memory", check_memory, MOST_S),
        ("descriptors", check_descriptors, MOST_S),
        ("processes", check_processes, MOST_S),
        ("shared memory", check_shm, MOST_S),
        ("memory files", check_shared_files, MOST_S),
        ("ports", check_ports, MOST_S),
        ("name", check_name, MOST_S),
        ("clock", check_clock, MOST_S),
        ("output", partial(check_output, output), MOST_S),
        ("temporary files", check_temporary, MOST_S),
        ("slurm", partial(check_slurm, kill_s), MOST_S),
        ("kubernetes", check_kubernetes, MOST_S),
        ("containers", check_podman, MOST_S),
    ]
    if coordinator is not None:
        checks.insert(12, ("coordinator", partial(check_coordinator, coordinator), MOST_S))
    begun = time.monotonic()
    running = [(_Examination(name, check), begun + most_s) for name, check, most_s in checks]
    for examination, deadline in running:
        yield from examination.findings(deadline)


class _Examination:
    """One check in a thread of its own, which is left behind if it hangs."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self._check = check
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=f"edldist-doctor-{name}", daemon=True)
        self._begun = time.monotonic()
        self._thread.start()

    def findings(self, deadline: float) -> Sequence[Finding]:
        """What it found, once it is known."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            return self._found
        waited_s = time.monotonic() - self._begun
        return [
            fail(
                self._name,
                f"no answer within {waited_s:.0f} s",
                "look at what it asks: a disk, a name server?",
            )
        ]

    def _run(self) -> None:
        try:
            self._found = list(self._check())
        except Exception as exc:  # whatever it meets is what this machine lacks
            self._found = [
                fail(
                    self._name, f"it could not be looked at: {type(exc).__name__}: {exc}", "see what it says"
                )
            ]
