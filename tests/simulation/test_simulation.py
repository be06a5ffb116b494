"""Seeds of the simulation hold, and a seed is one story."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edldist.wire.messages import Heartbeat, Lease, Need
from tests.simulation.__main__ import main
from tests.simulation.faults import KINDS, plan
from tests.simulation.runs import run, run_seed
from tests.simulation.shared_world import SharedWorld
from tests.simulation.shrink import shrink
from tests.simulation.telling import told
from tests.simulation.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 50


def _simulate(*arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.timeout(900)
def test_many_jobs_survive_what_their_seeds_do_to_them():
    kinds: set[str] = set()
    faults = steps = missed = 0
    for seed in range(1000, 1000 + SEEDS):
        world = World(seed)
        outcome = run(world)
        assert not outcome.violations, f"python -m tests.simulation --replay {seed}\n" + "\n".join(
            outcome.violations
        )
        assert len(world.struck) == outcome.fired
        kinds |= {fault.kind for fault in world.struck}
        faults += outcome.fired
        steps += outcome.training_steps
        missed += world.missed
    assert kinds == set(KINDS)
    assert faults > 30 * SEEDS and steps > 12 * SEEDS and missed >= 5


def test_the_command_runs_seeds_in_several_processes_and_ends_with_what_they_came_to():
    done = _simulate("--seeds", "2", "--processes", "2")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]
    assert re.fullmatch(r"2 seeds, \d+ faults, 0 violations", done.stdout.splitlines()[-1])


@pytest.mark.timeout(300)
def test_jobs_that_share_a_fleet_have_their_shares_when_all_is_mended_and_nobody_starves():
    told: list[str] = []
    world = SharedWorld(1, tell=told.append)
    outcome = world.run()
    assert not outcome.violations, outcome.violations
    assert outcome.fired >= 20 and world.steps_of_overload >= 2
    assert any("in 20 s of peace jobs took" in line for line in told)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_fleets_that_jobs_share_survive_what_their_seeds_do_to_them():
    done = _simulate("--shared", "--seeds", "40", "--processes", "2")
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]
    last = done.stdout.splitlines()[-1]
    assert last.startswith("40 seeds, ") and last.endswith(" faults, 0 violations"), last


def test_a_seed_is_the_same_story_in_every_process():
    """Byte for byte, whatever the hashes of strings are there: a failing seed can be told and compared."""
    stories = [_simulate("--replay", "9", hash_seed=seed).stdout for seed in ("1", "77")]
    assert len(stories[0].splitlines()) > 100
    assert stories[0] == stories[1]


def test_a_seed_is_the_same_story_whether_it_is_told_or_not():
    lines: list[str] = []
    assert World(11, tell=lines.append).run().digest == run_seed(11).digest
    assert any("FAULT" in line for line in lines)
    assert max(map(len, lines)) < 1_000, "nobody reads that"


def test_a_message_is_told_by_what_it_says():
    busy = Heartbeat(id="w", stats={"samples": 3, "held": 0, "reason": ""}, capacity=2.5)
    assert told(busy) == "Heartbeat(id='w', stats={samples: 3}, capacity=2.5)"
    assert told(Lease(id=7, samples=2, cost=0, own_pass=True)) == "Lease(id=7, samples=2, own_pass=True)"
    need = Need(group="t", hunger=None, lacking=4, buffered=0)
    assert told(Heartbeat(id="r", needs=[need])) == "Heartbeat(id='r', needs=[Need(group='t', lacking=4)])"


def test_what_differs_from_its_default_is_told_though_it_is_empty():
    class Doubt(msgspec.Struct):
        sure: bool = True
        known: bool = False

    assert told(Doubt(sure=False, known=False)) == "Doubt(sure=False)"
    assert told("no message") == "'no message'"


def test_a_plan_is_shrunk_to_the_faults_that_matter():
    tried = []

    def fails(numbers: list[int]) -> bool:
        tried.append(numbers)
        return {3, 17, 40} <= set(numbers)

    assert shrink(range(60), fails, within_s=60.0) == [3, 17, 40]
    assert len(tried) < 200


def test_a_failure_without_any_fault_shrinks_to_none():
    assert shrink(range(60), lambda numbers: True, within_s=60.0) == []


def test_a_fault_can_be_left_out_without_changing_the_others():
    whole = World(5).faults
    assert World(5, only=[4, 9]).faults == [fault for fault in whole if fault.number in (4, 9)]


def test_every_kind_of_fault_is_planned():
    import random

    assert {fault.kind for seed in range(40) for fault in plan(random.Random(seed), 50, 0.1)} == set(KINDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "0"], "'0' is not a whole number of 1 or more"),
        (["--seeds", "-1"], "'-1' is not a whole number of 1 or more"),
        (["--processes", "x"], "'x' is not a whole number of 1 or more"),
        (["--replay", "3", "--only", "x"], "'x' is not a list of numbers like 3,17"),
        (["--replay", "3", "--only", "9999"], "seed 3 has no faults [9999]; its plan has 0 to"),
    ],
)
def test_what_cannot_be_run_is_no_success(arguments: list[str], says: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
