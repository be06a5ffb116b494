"""Lightning's own Trainer on two ranks of a job: what they train on, and what a fault costs."""

from __future__ import annotations

import dataclasses
import json
import signal

import pytest

from tests.fault.harness import ROOT, FaultJob, Role, fault_job, wait_for
from tests.integration.lightning_loop import SAMPLES, STEPS, InProcess, Module, Setup, trainer_of

pytestmark = [
    pytest.mark.fault,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # Lightning's
]

RANKS = 2


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Module:
    """The same training in one process, with labels computed in it."""
    setup = Setup(every=99)
    module = Module(setup)
    trainer_of(setup, tmp_path_factory.mktemp("alone")).fit(module, InProcess())
    return module


def start(job: FaultJob, setup: Setup, ranks: int = RANKS) -> Role:
    script = str(ROOT / "tests" / "integration" / "lightning_loop.py")
    wanted = json.dumps(dataclasses.asdict(setup) | {"coordinator": job.address})
    nodes = ("--nnodes", "1", "--nproc-per-node", str(ranks))
    return job._start(
        "student",
        *("student", "--coordinator", job.address, *nodes, script, str(job.output), wanted),
        env={"EDLDIST_OUTPUT": str(job.output), "OMP_NUM_THREADS": "1"},
    )


def trained(job: FaultJob) -> dict[int, list[tuple[int, list[int], float]]]:
    """By step, over all ranks: the epoch, the samples and the loss of the surviving model."""
    ranks = []
    for rank in range(RANKS):
        lines = (job.output / f"steps-{rank}.jsonl").read_text().splitlines()
        ranks.append({step: (epoch, ids, loss) for step, epoch, ids, loss in map(json.loads, lines)})
    assert ranks[0].keys() >= ranks[1].keys()
    return {step: [rank[step] for rank in ranks if step in rank] for step in ranks[0]}


def assert_that_of_one_process(job: FaultJob, alone: Module) -> None:
    """Disjoint and complete, and the losses and weights of the run without ranks, job or fault."""
    steps = trained(job)
    assert sorted(steps) == list(range(3 * STEPS))
    for epoch in range(3):
        ids = [i for parts in steps.values() for at, part, _ in parts if at == epoch for i in part]
        assert sorted(ids) == list(range(SAMPLES))
    losses = [sum(loss for _, _, loss in steps[step]) / len(steps[step]) for step in sorted(steps)]
    assert losses == pytest.approx(alone.losses, abs=1e-6)
    written = sorted(job.output.glob("weights-*.json"))
    assert written
    for path in written:
        assert json.loads(path.read_text()) == pytest.approx(alone.weights, abs=1e-9)


def test_a_rank_that_is_killed_in_mid_epoch_costs_the_steps_since_the_checkpoint(tmp_path, alone):
    with fault_job(tmp_path, model="tests.models:identify") as job:
        job.coordinator()
        job.teacher("t-0")
        node = start(job, Setup(every=4, kill_at=10))
        assert node.wait(200) == 0, node.tail()
        assert (job.output / "killed-1").exists()
        lines = (job.output / "steps-0.jsonl").read_text().splitlines()
        assert [json.loads(line)[0] for line in lines][-(3 * STEPS - 8) :] == list(range(8, 3 * STEPS))
        assert_that_of_one_process(job, alone)


def test_a_job_that_is_asked_to_stop_goes_on_with_the_very_next_step_on_one_rank(tmp_path, alone):
    with fault_job(tmp_path, model="tests.models:identify") as job:
        job.coordinator()
        job.teacher("t-0")
        node = start(job, Setup(every=99, term_at=10))
        wait_for("the ranks to wait", lambda: len(list(job.output.glob("waits-*"))) == RANKS, 100)
        node.send(signal.SIGTERM)
        node.wait(60)
        before = [len(parts) for _, parts in sorted(trained(job).items())]
        assert before in ([2] * 10, [2] * 11), node.tail()
        node = start(job, Setup(every=99, term_at=10), ranks=1)
        assert node.wait(120) == 0, node.tail()
        lines = (job.output / "steps-0.jsonl").read_text().splitlines()
        assert [json.loads(line)[0] for line in lines] == list(range(3 * STEPS))
        assert_that_of_one_process(job, alone)
