"""The command line and threads of a student's process group."""

from __future__ import annotations

import pytest

from edldist.errors import ConfigError
from edldist_launch.torchrun import available_cores, limit_threads, torchrun_command


def test_one_node_stands_alone_and_arguments_pass_untouched() -> None:
    command = torchrun_command("s.py", ["--epochs", "5", "--", "-x"], nproc_per_node=2, max_restarts=7)
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert {"--standalone", "--nproc-per-node=2", "--max-restarts=7"} <= set(command)
    assert command[-5:] == ["s.py", "--epochs", "5", "--", "-x"]


def test_several_nodes_meet_outside_of_all_of_them() -> None:
    command = torchrun_command("s.py", [], nnodes="1:4", rendezvous="10.0.0.5:7072", run_id="job")
    assert {"--nnodes=1:4", "--rdzv-backend=c10d", "--rdzv-endpoint=10.0.0.5:7072"} <= set(command)
    assert "--rdzv-id=job" in command
    assert next(part for part in command if part.startswith("--rdzv-conf=")).startswith(
        "--rdzv-conf=is_host=0,"
    )


@pytest.mark.parametrize("nnodes", ["1:4", "2"])
def test_several_nodes_without_a_meeting_place_are_refused(nnodes: str) -> None:
    with pytest.raises(ConfigError, match="need a rendezvous store"):
        torchrun_command("s.py", [], nnodes=nnodes)


@pytest.mark.parametrize("nnodes", ["", "x", "0", "4:1"])
def test_a_malformed_number_of_nodes_is_refused(nnodes: str) -> None:
    with pytest.raises(ConfigError, match="nnodes: .* is not allowed"):
        torchrun_command("s.py", [], nnodes=nnodes)


def test_cores_are_shared_out_unless_the_user_chose() -> None:
    environment: dict[str, str] = {}
    assert limit_threads(environment, 1) == available_cores()
    chosen = {"OMP_NUM_THREADS": "7"}
    assert limit_threads(chosen, 1) is None
    assert chosen == {"OMP_NUM_THREADS": "7"}
    crowded: dict[str, str] = {}
    assert limit_threads(crowded, 10_000) == 1
    assert crowded == {"OMP_NUM_THREADS": "1"}
