"""What happens when things die, in figures: each row of the README's table on real processes.

``python -m edldist_benchmarks.recovery [ROW ...]`` prints a table; ``--json FILE`` keeps the figures.
Processes and faults are those of ``tests/fault``, where the same cases are held against their limits; here
they are only timed. What a lost network costs is measured there too (it takes hosts of the test's own).

Columns: seconds until the loss was noticed, longest time between two batches from the fault on, samples a
second before and after, and seconds to the first batch or step of whoever came or came back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edldist_benchmarks.processes import wait_until
from tests.fault.crew import Crew, crew
from tests.fault.harness import FaultJob, Role, fault_job

__all__ = ["ROWS", "Outcome", "measure"]

WORKERS = 4
TTL_S = 1.0
PASS_S = 0.04
WATCHED_S = 3.0
FLEET = {
    "samples": 2000,
    "batch_size": 20,
    "step_s": 0.01,
    "heartbeat_ttl_s": TTL_S,
    "first_deadline_s": 30,
    "min_deadline_s": 1.5,
}


@dataclass(frozen=True)
class Outcome:
    """Figures of one row; None where a column has no meaning for it."""

    row: str
    noticed_s: float | None = None
    gap_s: float | None = None
    rate_before: float | None = None
    rate_after: float | None = None
    first_step_s: float | None = None
    note: str = ""


# --- teachers ---------------------------------------------------------------------------------------


def _pass(party: Crew, seconds: float) -> None:
    """Let training go on for some seconds."""
    party.await_steps(1)
    until = time.time() + seconds
    wait_until("some training", lambda: time.time() > until)
    party.await_steps(1)


def _requeued(party: Crew, worker: Role, since: float) -> float:
    """When the student took a worker's tasks back."""

    def found() -> list[float]:
        events = party.job.events("task_requeued")
        return [e.t for e in events if e.fields["worker"] == worker.name and e.t > since]

    wait_until(f"tasks of {worker.name}", lambda: bool(found()))
    return found()[0]


def _killed(party: Crew) -> Outcome:
    start = time.time()
    _pass(party, WATCHED_S)
    with party.job.computing() as victim:
        died = time.time()
        victim.kill()
    noticed_s = _requeued(party, victim, died) - died
    _pass(party, 1 + WATCHED_S)
    return Outcome(
        "one of four workers killed",
        noticed_s,
        party.gap_s(died),
        party.rate(start, died),
        party.rate(died + 1, died + 1 + WATCHED_S),
    )


def _frozen(party: Crew) -> Outcome:
    since = party.logged()
    with party.job.computing() as victim:
        victim.send(signal.SIGSTOP)
        froze = time.time()
    noticed = party.await_log(f"worker {victim.name} is lost: silent", since=since)
    _pass(party, 1.0)
    gap_s, labelled, thawed = party.gap_s(froze), party.labelled_by(victim), time.time()
    victim.send(signal.SIGCONT)
    wait_until("it to label again", lambda: party.labelled_by(victim) > labelled)
    return Outcome(
        f"a worker frozen (TTL {TTL_S:g} s)", noticed - froze, gap_s, first_step_s=time.time() - thawed
    )


def _hung(party: Crew) -> Outcome:
    before = int(party.stats()["hedged"] or 0)
    party.job.ask("hang")
    victim = party.job.culprit("hang")
    hung = time.time()
    _pass(party, WATCHED_S)
    gap_s, hedged = party.gap_s(hung), int(party.stats()["hedged"] or 0) - before
    victim.kill()
    return Outcome("a worker's model hangs", None, gap_s, note=f"{hedged} tasks given to another as well")


def _slowed(party: Crew) -> Outcome:
    start = time.time()
    _pass(party, WATCHED_S)
    party.job.ask("slow")
    slug = party.job.culprit("slow")
    slowed = time.time()
    _pass(party, 1 + WATCHED_S)
    outcome = Outcome(
        "a worker 20 times slower",
        None,
        party.gap_s(slowed),
        party.rate(start, slowed),
        party.rate(slowed + 1, time.time()),
    )
    slug.kill()
    return outcome


def _joined(party: Crew) -> Outcome:
    start = time.time()
    (worker,) = party.hire(1)
    wait_until("it to register", lambda: party.member(worker.name) is not None)
    here = time.time()
    wait_until("it to label", lambda: party.labelled_by(worker) > 0)
    return Outcome("a worker joins", None, party.gap_s(start), first_step_s=time.time() - here)


def _drained(party: Crew) -> Outcome:
    before = party.stats()
    with party.job.computing() as victim:
        asked = time.time()
        victim.send(signal.SIGTERM)
    code = victim.wait(30)
    left_s = time.time() - asked
    _pass(party, 1.0)
    failed = int(party.stats()["failed"] or 0) - int(before["failed"] or 0)
    return Outcome(
        "a worker told to leave",
        None,
        party.gap_s(asked),
        note=f"left in {left_s:.2f} s with exit code {code}, {failed} failed tasks",
    )


def _quarantined(party: Crew) -> Outcome:
    before = int(party.stats()["failed"] or 0)
    start = time.time()
    worker = party.job.teacher("sick", env={"EDLDIST_TEST_SICK": "1"})
    wait_until("its first failure", lambda: party.job.fired("sick"))
    failed_at = time.time()

    def quarantined() -> bool:
        return any(e.fields["worker"] == "sick" for e in party.job.events("teacher_quarantined"))

    wait_until("its quarantine", quarantined)
    noticed_s = time.time() - failed_at
    _pass(party, 1.0)
    failed = int(party.stats()["failed"] or 0) - before
    worker.kill()
    return Outcome(
        "a worker keeps failing", noticed_s, party.gap_s(start), note=f"{failed} failures, then quarantined"
    )


def _none_left(party: Crew) -> Outcome:
    since = party.logged()
    for worker in party.workers():
        worker.kill()
    died = time.time()
    noticed = party.await_log("no worker of 'teacher' is connected", since=since)
    (worker,) = party.hire(1)
    wait_until("it to register", lambda: party.member(worker.name) is not None)
    back = time.time()
    steps = len(party.steps())
    wait_until("a batch", lambda: len(party.steps()) > steps)
    return Outcome("no teacher is left for a while", noticed - died, first_step_s=time.time() - back)


def _coordinator(party: Crew) -> Outcome:
    coordinator = next(role for role in party.job.roles if role.name == "coordinator" and role.alive)
    _pass(party, 2.0)  # whom an earlier row killed is no member after its time to live
    members = len(party.job.status().members)
    died = time.time()
    coordinator.kill()
    _pass(party, WATCHED_S)
    party.job.coordinator()
    listens = time.time()
    wait_until("everyone to be known", lambda: len(party.job.status().members) >= members)
    known_s = time.time() - listens
    _pass(party, 1.0)
    return Outcome(
        "the coordinator killed and restarted", None, party.gap_s(died), note=f"knew all in {known_s:.2f} s"
    )


# --- tasks that cannot be labelled ------------------------------------------------------------------


def _poisoned(folder: Path) -> list[Outcome]:
    """A task that every model raises on, then one that kills its workers."""
    outcomes = []
    with fault_job(folder, model="tests.fault.teachers:cursed", checkpoint_every=10**6) as job:
        job.coordinator()
        for number in range(WORKERS + 1):
            job.teacher(f"t-{number}")
        job.await_serving(WORKERS + 1, 120)
        for name, deadly in (("raises", False), ("deadly", True)):
            if deadly:
                job.ask("deadly")
            output = job.folder / name
            student = job.script(name, output=output, samples=1000, batch_size=20, step_s=0.02)
            first = job.faults / ("killed" if deadly else "poison.fired")
            wait_until("the poison", lambda path=first: path.exists(), 60)
            began = first.stat().st_ctime
            student.wait(60)
            text = student.log.read_text(errors="replace")
            dead = sum(not role.alive for role in job.roles if role.name.startswith("t-"))
            row = "a task kills its workers" if deadly else "a task that every model raises on"
            raised = "PoisonTaskError" in text
            note = f"{'PoisonTaskError' if raised else 'no error!'}, {dead} workers dead"
            outcomes.append(Outcome(row, time.time() - began, job.longest_gap(output), note=note))
    return outcomes


# --- students -----------------------------------------------------------------------------------------


def _first_step(job: FaultJob, event: float, world: int, other_than: set[int]) -> float:
    """Seconds from an event to the first step of a group of ``world`` new ranks."""

    def found() -> list[float]:
        return [
            s["t"]
            for s in job.steps()
            if s["t"] > event and s["world"] == world and s["pid"] not in other_than
        ]

    wait_until(f"a step of {world} ranks", lambda: bool(found()))
    return float(found()[0] - event)


def _students(folder: Path) -> list[Outcome]:
    """Nodes die, join and are preempted; the job is interrupted and goes on."""
    outcomes = []
    with fault_job(folder, model="tests.fault.teachers:steady", checkpoint_every=10) as job:
        job.coordinator()
        job.teacher("t-0")
        job.teacher("t-1")
        args = {"samples": 100_000, "batch_size": 20, "step_s": 0.05}

        def node(number: int) -> Role:
            return job.student(f"student-{number}", nnodes="1:3", **args)

        def ranks() -> set[int]:
            return {p.pid for role in nodes.values() if role.alive for p in role.ranks()}

        def note(event: float) -> str:
            before = [s["step"] for s in job.steps() if s["t"] <= event]
            after = [s["step"] for s in job.steps() if s["t"] > event + 0.5]
            return f"{max(0, max(before) - min(after) + 1)} steps computed again"

        def some_steps() -> None:
            job.await_step(max(s["step"] for s in job.steps()) + 15)

        nodes = {0: node(0), 1: node(1)}
        _first_step(job, 0.0, 2, set())
        some_steps()

        former, event = ranks(), time.time()
        nodes[0].ranks()[0].kill()
        outcomes.append(
            Outcome(
                "a rank killed (two nodes)",
                first_step_s=_first_step(job, event, 2, former),
                note=note(event),
            )
        )
        some_steps()

        former, event = ranks(), time.time()
        next(p for p in nodes[0].tree() if any(part.endswith("/agent.py") for part in p.cmdline())).kill()
        outcomes.append(
            Outcome(
                "an agent killed (two nodes)",
                first_step_s=_first_step(job, event, 2, former),
                note=note(event),
            )
        )
        some_steps()

        former, event = ranks(), time.time()
        nodes.pop(0).kill_tree()
        outcomes.append(
            Outcome(
                "a student node killed", first_step_s=_first_step(job, event, 1, former), note=note(event)
            )
        )
        some_steps()

        former, event = ranks(), time.time()
        nodes[2] = node(2)
        outcomes.append(
            Outcome("a student node joins", first_step_s=_first_step(job, event, 2, former), note=note(event))
        )
        some_steps()

        former, event = ranks(), time.time()
        leaving = nodes.pop(2)
        leaving.send(signal.SIGTERM)
        first_step_s = _first_step(job, event, 1, former)
        outcomes.append(Outcome("a student node preempted", first_step_s=first_step_s, note=note(event)))
        some_steps()

        (last,) = nodes.values()
        event = time.time()
        last.send(signal.SIGTERM)
        code = last.wait(60)
        left_s, left_at, former = time.time() - event, max(s["step"] for s in job.steps()), ranks()
        event = time.time()
        nodes = {3: node(3)}
        first_step_s = _first_step(job, event, 1, former)
        again = min(s["step"] for s in job.steps() if s["t"] > event)
        text = f"left in {left_s:.1f} s (exit code {code}), went on with step {again} after {left_at}"
        outcomes.append(
            Outcome("the job interrupted, then started again", None, None, None, None, first_step_s, text)
        )
    return outcomes


# --- all of it ----------------------------------------------------------------------------------------

FLEET_ROWS: dict[str, Callable[[Crew], Outcome]] = {
    "killed": _killed,
    "frozen": _frozen,
    "hung": _hung,
    "slow": _slowed,
    "joins": _joined,
    "drained": _drained,
    "failing": _quarantined,
    "coordinator": _coordinator,
    "none-left": _none_left,
}
SCENES: dict[str, Callable[[Path], list[Outcome]]] = {"poison": _poisoned, "students": _students}
ROWS = [*FLEET_ROWS, *SCENES]


def measure(rows: Sequence[str] = ()) -> list[Outcome]:
    """Run some rows, or all.

    Raises:
        ValueError: there is no such row.
        TimeoutError: something that should have happened did not.
    """
    unknown = [row for row in rows if row not in ROWS]
    if unknown:
        raise ValueError(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    wanted = [row for row in ROWS if row in rows or not rows]
    outcomes: list[Outcome] = []
    with _folder() as folder:
        fleet = [FLEET_ROWS[row] for row in wanted if row in FLEET_ROWS]
        if fleet:
            with crew(folder / "fleet", WORKERS, FLEET, pass_s=PASS_S, heartbeat_ttl_s=TTL_S) as party:
                for row in fleet:
                    party.staff(WORKERS)
                    party.await_steps(20)
                    outcomes.append(row(party))
                    print(outcomes[-1], flush=True)  # kept, should a later row fail
                party.staff(1)
                party.finish()
        for name in wanted:
            if name in SCENES:
                found = SCENES[name](folder / name)
                print(*found, sep="\n", flush=True)
                outcomes += found
    return outcomes


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edldist-recovery-") as folder:
        yield Path(folder)


def _show(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=f"when things die ({os.cpu_count()} cores)")
    for column in ("", "noticed s", "gap s", "before /s", "after /s", "first step s", "note"):
        table.add_column(column, justify="left" if column in ("", "note") else "right")
    for outcome in outcomes:
        seconds = [outcome.noticed_s, outcome.gap_s]
        rates = [outcome.rate_before, outcome.rate_after]
        table.add_row(
            outcome.row,
            *("" if value is None else f"{value:.2f}" for value in seconds),
            *("" if value is None else f"{value:.0f}" for value in rates),
            "" if outcome.first_step_s is None else f"{outcome.first_step_s:.2f}",
            outcome.note,
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help=f"some of {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    outcomes = measure(options.rows)
    Console(width=150).print(_show(outcomes))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))


if __name__ == "__main__":
    main()
