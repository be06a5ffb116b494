"""The command line and threads of a student's process group."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edldist.errors import ConfigError
from edldist_launch.node.agent import AgentOptions
from edldist_launch.node.torchrun import (
    default_run_id,
    meeting_host,
    prepare_environment,
    torchrun_command,
)


def test_one_node_stands_alone_and_arguments_pass_untouched() -> None:
    command = torchrun_command("s.py", ["--epochs", "5", "--", "-x"], nproc_per_node=2, max_restarts=7)
    assert Path(command[1]).name == "agent.py"
    options = msgspec.json.decode(command[2], type=AgentOptions)
    assert options.coordinator is None and options.ranks == 2
    assert {"--nnodes=1:1", "--nproc-per-node=2", "--max-restarts=7"} <= set(command)
    assert command[-5:] == ["s.py", "--epochs", "5", "--", "-x"]


def test_several_nodes_meet_at_the_coordinator() -> None:
    command = torchrun_command(
        "jobs/s.py", ["-x", "a b"], nnodes="1:4", coordinator="tcp://10.0.0.5:7070", run_id="job"
    )
    options = msgspec.json.decode(command[2], type=AgentOptions)
    assert options.coordinator == "tcp://10.0.0.5:7070" and options.job == "s.py -x 'a b'"
    assert {"--nnodes=1:4", "--rdzv-backend=edldist", "--rdzv-id=job"} <= set(command)


@pytest.mark.parametrize("nnodes", ["1:4", "2"])
def test_several_nodes_without_a_meeting_place_are_refused(nnodes: str) -> None:
    with pytest.raises(ConfigError, match="meet at a coordinator"):
        torchrun_command("s.py", [], nnodes=nnodes)


@pytest.mark.parametrize("nnodes", ["", "x", "0", "4:1"])
def test_a_malformed_number_of_nodes_is_refused(nnodes: str) -> None:
    with pytest.raises(ConfigError, match="nnodes: .* is not allowed"):
        torchrun_command("s.py", [], nnodes=nnodes)


def test_nodes_that_run_the_same_command_meet_and_other_jobs_do_not() -> None:
    job = {"EDLDIST_JOB": "digits", "EDLDIST_OUTPUT": "/out/a"}
    here = default_run_id("jobs/train.py", ["--lr", "1"], "1:4", job)
    assert here == default_run_id("jobs/train.py", ["--lr", "1"], "1:4", job | {"HOSTNAME": "other"})
    assert here.startswith("digits-")
    others = [
        default_run_id("jobs/other.py", ["--lr", "1"], "1:4", job),
        default_run_id("jobs/train.py", ["--lr", "2"], "1:4", job),
        default_run_id("jobs/train.py", ["--lr", "1"], "2:4", job),
        default_run_id("jobs/train.py", ["--lr", "1"], "1:4", job | {"EDLDIST_JOB": "faces"}),
        default_run_id("jobs/train.py", ["--lr", "1"], "1:4", job | {"EDLDIST_OUTPUT": "/out/b"}),
        default_run_id("jobs/train.py", ["--lr", "1"], "1:4", {}),
    ]
    assert len({here, *others}) == 1 + len(others)
    assert others[-1].startswith("train-")


@pytest.mark.parametrize(
    ("coordinator", "most", "advertise", "host"),
    [
        ("tcp://no-such-host.invalid:7070", 1, "10.0.0.5", "127.0.0.1"),
        ("tcp://127.0.0.1:7070", 2, None, "127.0.0.1"),
        ("tcp://no-such-host.invalid:7070", 2, "10.0.0.5", "10.0.0.5"),
        ("tcp://no-such-host.invalid:7070", 2, "10.0.0.5:9000", "10.0.0.5"),
        ("tcp://no-such-host.invalid:7070", 2, "[fd00::5]:9000", "fd00::5"),
    ],
)
def test_nodes_meet_by_address(coordinator: str, most: int, advertise: str | None, host: str) -> None:
    assert meeting_host(coordinator, most, advertise) == host
    command = torchrun_command("s.py", [], nnodes=f"1:{most}", coordinator=coordinator, local_host=host)
    assert f"--local-addr={host}" in command


def test_gloo_gets_the_interface_of_the_address_unless_the_user_chose() -> None:
    environment: dict[str, str] = {}
    prepare_environment(environment, "127.0.0.1")
    assert environment["GLOO_SOCKET_IFNAME"].startswith("lo")
    prepare_environment(environment, "192.0.2.1")
    assert environment["GLOO_SOCKET_IFNAME"].startswith("lo")
    chosen = {"GLOO_SOCKET_IFNAME": "ib0"}
    prepare_environment(chosen, "127.0.0.1")
    assert chosen["GLOO_SOCKET_IFNAME"] == "ib0"
    unknown: dict[str, str] = {}
    prepare_environment(unknown, "192.0.2.1")
    assert "GLOO_SOCKET_IFNAME" not in unknown
