"""Elastic agents of their own processes, which meet other nodes at a coordinator."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.wire.messages import GroupNode, NodeReport, RunView
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.node.agent import EXIT_CLOSED
from edldist_launch.node.torchrun import torchrun_command
from edldist_launch.process.tie import tied_command
from tests.integration.members import Running, until

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 90.0
SAY_WORLD = (
    "import os; os.write(1, f\"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\\n\".encode())\n"
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SAY_WORLD)
    return path


@contextlib.contextmanager
def agent(coordinator: str, script: Path, nnodes: str, ranks: int = 1) -> Iterator[subprocess.Popen[str]]:
    command = torchrun_command(
        str(script), [], nnodes=nnodes, nproc_per_node=ranks, coordinator=coordinator, run_id="job"
    )
    with subprocess.Popen(
        tied_command(command, parent=os.getpid()),
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


class OtherNode:
    """A node without ranks, whose reports the test makes."""

    def __init__(self, coordinator: str, job: str, nnodes: tuple[int, int]) -> None:
        self._poller = ZmqTransport().poller()
        self._link = self._poller.connect(coordinator, "node-other")
        self.report = NodeReport(
            run="job",
            job=job,
            node=GroupNode(process="other", host="127.0.0.1", port=9, ranks=1),
            least=nnodes[0],
            most=nnodes[1],
            state="joining",
            seq=1,
        )

    def attend(self) -> RunView:
        """Report until a generation has formed."""

        def look() -> RunView | None:
            self._link.send(self.report)
            self._poller.wait(0.1)
            views = []
            while (received := self._link.receive()) is not None:
                assert isinstance(received.message, RunView)
                views.append(received.message)
            return next((view for view in views if view.generation is not None), None)

        return until(look, "a generation")

    def close(self) -> None:
        self._poller.close()


@pytest.mark.slow
def test_nodes_with_different_numbers_of_ranks_count_them_together(running: Running, script: Path) -> None:
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(agent(running.address, script, "2", ranks=ranks)) for ranks in (1, 2)]
        said = [process.communicate(timeout=WITHIN_S) for process in agents]
    assert [process.returncode for process in agents] == [0, 0], said
    told = sorted(line for output, _ in said for line in output.splitlines())
    assert told == ["rank 0 of 3", "rank 1 of 3", "rank 2 of 3"]
    assert "Error waiting on exit barrier" not in said[0][1] + said[1][1]


@pytest.mark.slow
def test_a_node_that_dies_while_nodes_meet_is_not_waited_for(running: Running, tmp_path: Path) -> None:
    """Its ranks never began, so those of the others notice nothing."""
    script = tmp_path / "script.py"
    script.write_text(f"{SAY_WORLD}import time\ntime.sleep(600 * (os.environ['WORLD_SIZE'] == '2'))\n")
    with contextlib.ExitStack() as stack:
        other = OtherNode(running.address, "script.py", (1, 2))
        stack.callback(other.close)
        process = stack.enter_context(agent(running.address, script, "1:2"))
        until(lambda: running.coordinator._rendezvous._runs, "the agent to wait for others")
        generation = other.attend().generation
        assert generation is not None and len(generation.nodes) == 2
        other.close()
        output, error = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, error
    assert output.splitlines()[-1] == "rank 0 of 1" and " of 2" in output


@pytest.mark.slow
def test_a_node_that_comes_after_the_end_has_nothing_to_do(running: Running, script: Path) -> None:
    with agent(running.address, script, "1:2") as first:
        first.communicate(timeout=WITHIN_S)
    with agent(running.address, script, "1:2") as second:
        output, error = second.communicate(timeout=WITHIN_S)
    assert (first.returncode, second.returncode) == (0, 0), error
    assert output == ""
    assert "run job is complete: other nodes have finished it" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_node_whose_ranks_failed_at_the_end_has_failed(running: Running, tmp_path: Path) -> None:
    """The other of two is done, and one alone may not go on."""
    script = tmp_path / "script.py"
    script.write_text("import os, sys, time\nif os.environ['RANK'] == '1': time.sleep(1); sys.exit(5)\n")
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(agent(running.address, script, "2")) for _ in range(2)]
        said = [process.communicate(timeout=WITHIN_S) for process in agents]
    assert sorted(process.returncode for process in agents) == [0, EXIT_CLOSED], said
    assert sum("has ended on other nodes" in error for _, error in said) == 1


def test_a_node_of_another_job_is_refused_and_says_which(running: Running, script: Path) -> None:
    other = OtherNode(running.address, "evaluate.py --all", (1, 2))
    try:
        other.attend()
        with agent(running.address, script, "1:2") as process:
            while process.poll() is None:
                other.attend()
            error = process.communicate()[1]
    finally:
        other.close()
    assert process.returncode == 1
    assert "'evaluate.py --all' on 1:2 nodes" in error and "'script.py' on 1:2 nodes" in error


def test_an_agent_that_is_told_to_end_shows_no_traceback(running: Running, tmp_path: Path) -> None:
    """Thirty lines of torchrun's, for an ordinary Ctrl-C, look like a fault."""
    script = tmp_path / "script.py"
    up = tmp_path / "up"
    script.write_text(f"import pathlib, time\npathlib.Path({str(up)!r}).touch()\ntime.sleep(600)\n")
    with agent(running.address, script, "1") as process:
        until(up.exists, "the rank to be up")
        process.terminate()
        error = process.communicate(timeout=WITHIN_S)[1]
    assert process.returncode == 143
    assert "Traceback" not in error and "SignalException" not in error
