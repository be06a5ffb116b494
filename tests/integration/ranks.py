"""A program of several ranks as processes of a test: a file to meet at, and a line of JSON from each."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.forked import Program, outcomes_of

__all__ = ["ROOT", "run_ranks"]

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(
    module: str,
    plans: Mapping[str, Any],
    world: int,
    folder: Path,
    dies: bool = False,
    timeout_s: float = 150.0,
) -> list[dict[str, Any]]:
    """Run a module on every rank, and return what each printed last: a line of JSON.

    It finds RANK, WORLD_SIZE and LOCAL_RANK in its environment, and as its argument ``plans``, by name, and
    ``meeting``, the URL at which a gloo group can meet.

    Args:
        dies: whether all ranks are to die; nothing is returned then.
    """
    meeting = folder / f"meeting-{len(list(folder.iterdir()))}"
    job = json.dumps({"plans": plans, "meeting": f"file://{meeting}"})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    processes = [
        Program(
            module,
            job,
            environment=environment
            | {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"},  # read, and not used: the group has met
        )
        for rank in range(world)
    ]
    outcomes = outcomes_of(processes, timeout_s)
    errors = "\n".join(stderr for _, stderr in outcomes)
    assert [process.returncode != 0 for process in processes] == [dies] * world, errors
    return [] if dies else [json.loads(stdout.splitlines()[-1]) for stdout, _ in outcomes]
