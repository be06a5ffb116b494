"""Records what the students of a real job could take, while their number changes: a load for ``autoscale``.

``python -m edldist_benchmarks.recording FILE`` runs the digits example on this machine with one to three
nodes, whose number it changes every 90 seconds, and writes down every five seconds what the coordinator says
that they could take if they never waited. It takes eleven minutes.
"""

from __future__ import annotations

import contextlib
import csv
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edldist.errors import EdlDistError
from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from edldist_benchmarks.processes import EDLDIST
from edldist_launch.job.found import find_job

__all__ = ["record"]

ROOT = Path(__file__).resolve().parents[1]
NODES = (1, 2, 3, 2, 1, 3, 2)
STAGE_S = 90.0
EVERY_S = 5.0
START_S = 600.0
SETTINGS = (
    "prepare.args=[--teacher-epochs, 2, --epochs, 1]",
    "student.args=[--epochs, 5000, --batch-size, 64]",  # more than it comes to
    "student.nnodes=1:3",
    "checkpoint.every_steps=2000",
    "deterministic=false",
    "teachers.0.replicas=2",
)


def record(file: Path) -> None:
    """Run the job, and write the file: seconds, samples a second (empty where nobody knows), and ranks."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "job"
        command = [*EDLDIST, "run", str(ROOT / "examples" / "digits" / "job.yaml"), "--output", str(output)]
        command += [word for setting in SETTINGS for word in ("--set", setting)]
        job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            with contextlib.closing(StatusClient(_address(output))) as client, file.open("w") as stream:
                table = csv.writer(stream, lineterminator="\n")
                table.writerow(("second", "demand", "ranks"))
                begun, since = time.monotonic(), 0
                for stage, nodes in enumerate(NODES):
                    _scale(output, nodes)
                    while (second := time.monotonic() - begun) < (stage + 1) * STAGE_S:
                        demand, ranks, since = _seen(client, since)
                        table.writerow((round(second), demand, ranks))
                        stream.flush()
                        time.sleep(EVERY_S - (time.monotonic() - begun) % EVERY_S)
        finally:
            job.terminate()
            job.wait()


def _address(output: Path) -> str:
    """The coordinator's, once the first student trains."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(EdlDistError):
            state = find_job(output).backend.state()
            if state.coordinator is not None and state.role("student").count("running"):
                return state.coordinator
        time.sleep(1.0)
    raise SystemExit(f"no student trains within {START_S:g} s")


def _scale(output: Path, nodes: int) -> None:
    command = [*EDLDIST, "scale", f"student={nodes}", "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _seen(client: StatusClient, since: int) -> tuple[str, int, int]:
    """The demand, the ranks that are here, and the number of the last record."""
    status: Status | None = None
    with contextlib.suppress(EdlDistError):
        status = client.query(since, EVERY_S / 2)
    if status is None:
        return "", 0, since
    demands = [group.demand for group in status.groups if group.demand is not None]
    ranks = sum(member.role == "student" for member in status.members)
    return (f"{demands[0]:.1f}" if demands else ""), ranks, status.seq


if __name__ == "__main__":
    record(Path(sys.argv[1]))
