"""Restarting, watching and ending child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from edldist.clock import FakeClock, SystemClock
from edldist_launch.local import child as module
from edldist_launch.local.child import Child, describe_exit, end_children
from edldist_launch.local.fleet import Fleet
from edldist_launch.local.last_words import own_error
from edldist_launch.process.restarts import RestartPolicy
from edldist_launch.process.tie import tied_command

pytestmark = pytest.mark.timeout(240)

SLEEP = "import time; print('up', flush=True); time.sleep(60)"
IGNORE_TERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
STUBBORN = IGNORE_TERM + SLEEP
# What a shell starts in the background, and all that this starts, ignores SIGINT.
HEED_INT = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def until(condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the awaited state did not come"
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Ended, or a zombie that an indifferent parent has not collected."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    made: list[Child] = []

    def build(code: str, name: str = "c") -> Child:
        child = Child(name, [sys.executable, "-c", code], dict(os.environ), tmp_path / f"{name}.log")
        made.append(child)
        return child

    yield build
    for child in made:
        child.kill()


# --- the policy -----------------------------------------------------------------------------------


def test_crashes_back_off_from_half_a_second_to_thirty() -> None:
    clock, policy, delays = FakeClock(), RestartPolicy(), []
    for _ in range(8):
        policy.started(clock.monotonic())
        assert policy.restart_at is None
        assert policy.exited(1, clock.monotonic()) == "restart"
        assert policy.restart_at is not None
        delays.append(policy.restart_at - clock.monotonic())
        clock.advance(delays[-1])
    assert delays == [0.5, 1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("healthy_s", "delay_s"), [(59.9, 1.0), (60.0, 0.5)])
def test_a_minute_of_health_resets_the_back_off(healthy_s: float, delay_s: float) -> None:
    clock, policy = FakeClock(), RestartPolicy()
    policy.started(0.0)
    policy.exited(-9, 0.0)
    policy.started(0.0)
    now = clock.advance(healthy_s)
    policy.exited(-9, now)
    assert policy.restart_at == now + delay_s


def test_exit_two_is_hopeless_only_before_the_child_ever_worked() -> None:
    fresh, proven = RestartPolicy(), RestartPolicy()
    proven.ready()
    assert fresh.exited(2, 0.0) == "hopeless"
    assert fresh.restart_at is None
    assert proven.exited(2, 0.0) == "restart"


def test_a_child_that_was_never_ready_is_given_up_after_so_many_starts_whatever_ended_it() -> None:
    policy = RestartPolicy(unready_starts=3)
    verdicts = []
    for code in (-9, 1, -11):
        policy.started(0.0)
        verdicts.append(policy.exited(code, 0.0))
    assert verdicts == ["restart", "restart", "hopeless"]


def test_a_child_that_was_ready_once_is_started_again_and_again() -> None:
    policy = RestartPolicy(unready_starts=3)
    for _ in range(10):
        policy.started(0.0)
        policy.ready()
        assert policy.exited(-9, 0.0) == "restart"


def test_exit_zero_stops_unless_the_child_is_to_be_kept() -> None:
    assert RestartPolicy().exited(0, 0.0) == "stopped"
    assert RestartPolicy(keep=True).exited(0, 0.0) == "restart"


@pytest.mark.parametrize("code", [143, 130, -signal.SIGTERM, -signal.SIGUSR1])
def test_one_that_was_asked_to_stop_is_left_alone_unless_it_is_to_be_kept(code: int) -> None:
    assert RestartPolicy().exited(code, 0.0) == "stopped"
    assert RestartPolicy(keep=True).exited(code, 0.0) == "restart"


def test_exits_in_words() -> None:
    assert describe_exit(3) == "exit code 3"
    assert describe_exit(-9) == "killed by SIGKILL"
    assert describe_exit(-200) == "killed by signal 200"


# --- one child ------------------------------------------------------------------------------------


def test_output_goes_to_the_log_and_the_tail_is_of_this_start_only(make: Callable[..., Child]) -> None:
    child = make("import sys; print('first'); sys.exit(3)")
    child.start()
    until(lambda: child.poll() is not None)
    assert child.poll() == 3
    assert child.output() == "first"
    again = make("print('second')")
    again.start()
    until(lambda: not again.running)
    assert again.output() == "second"
    text = again.log_path.read_text()
    assert text.index("first") < text.index("second")


def test_the_agents_report_after_a_traceback_is_cut(make: Callable[..., Child]) -> None:
    child = make(
        "print('ValueError: boom'); "
        "print('E1 torch/distributed/elastic/multiprocessing/api.py:1] failed (exitcode: 1)'); print('noise')"
    )
    child.start()
    until(lambda: not child.running)
    assert child.output() == "ValueError: boom"


def test_what_the_students_node_says_after_the_agents_report_is_kept(make: Callable[..., Child]) -> None:
    """Whether the agent reports before it is told to end is a matter of timing."""
    child = make(
        "print('a.ContractError: no:'); print('the reason'); "
        "print('E1 torch/distributed/elastic/multiprocessing/api.py:1] failed (exitcode: 1)'); print('x');"
        "print('2026-11-27 03:41:08.250 ERROR   student: giving up: ContractError: no: the reason')"
    )
    child.start()
    until(lambda: not child.running)
    assert child.output().splitlines()[2:] == [
        "2026-11-27 03:41:08.250 ERROR   student: giving up: ContractError: no: the reason"
    ]
    assert own_error(child.output()) == "giving up: ContractError: no: the reason"


def test_an_ended_child_takes_its_group_with_it(make: Callable[..., Child]) -> None:
    child = make(
        "import subprocess, sys\n"
        f"p = subprocess.Popen([sys.executable, '-c', {SLEEP!r}], stdout=subprocess.DEVNULL)\n"
        "print(p.pid, flush=True)"
    )
    child.start()
    until(lambda: not child.running)
    grandchild = int(child.output())
    until(lambda: gone(grandchild))


def test_ending_is_polite_first_and_sure_in_the_end(make: Callable[..., Child]) -> None:
    polite, stubborn = make(SLEEP, "polite"), make(STUBBORN, "stubborn")
    for child in (polite, stubborn):
        child.start()
    until(lambda: "up" in polite.output() and "up" in stubborn.output())
    end_children([polite, stubborn], 0.3, SystemClock(), time.sleep)
    assert polite.poll() == -signal.SIGTERM
    assert stubborn.poll() == -signal.SIGKILL


def test_a_second_request_does_not_wait(make: Callable[..., Child]) -> None:
    child = make(HEED_INT + STUBBORN)
    child.start()
    until(lambda: "up" in child.output())
    end_children([child], 1e9, SystemClock(), time.sleep, hurry=lambda: True)
    assert child.poll() == -signal.SIGINT


def test_who_insists_is_obeyed_by_those_who_heed_nothing(
    make: Callable[..., Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HURRY_S", 0.2)
    child = make(IGNORE_TERM + "signal.signal(signal.SIGINT, signal.SIG_IGN); " + SLEEP)
    child.start()
    until(lambda: "up" in child.output())
    end_children([child], 1e9, SystemClock(), time.sleep, hurry=lambda: True)
    assert child.poll() == -signal.SIGKILL


# --- tied lives -----------------------------------------------------------------------------------


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    """Also those in sessions of their own, as torchrun's ranks are."""
    rank = tied_command([sys.executable, "-c", STUBBORN], parent=0, signum=signal.SIGKILL)
    agent = (
        "import subprocess, time\n"
        f"p = subprocess.Popen({rank!r}, start_new_session=True, stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(60)"
    )
    supervisor = (
        "import os, sys, time; from pathlib import Path; from edldist_launch.local.child import Child\n"
        f"c = Child('agent', [sys.executable, '-c', {agent!r}], dict(os.environ), Path(sys.argv[1]))\n"
        "c.start()\n"
        "while not c.output(): time.sleep(0.01)\n"
        "print(c.pid, c.output(), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", supervisor, str(tmp_path / "agent.log")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        process.kill()
        for pid in pids:
            until(lambda pid=pid: gone(pid))
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_command_whose_parent_is_dead_already_does_not_start() -> None:
    command = tied_command([sys.executable, "-c", "print('ran')"], parent=os.getppid())
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (143, "")


def test_a_command_that_does_not_exist_is_named() -> None:
    done = subprocess.run(
        tied_command(["/nonexistent/x"], parent=os.getpid()), capture_output=True, text=True, check=False
    )
    assert done.returncode == 127
    assert "cannot run /nonexistent/x: No such file" in done.stderr


# --- a fleet --------------------------------------------------------------------------------------


def test_a_crashed_child_comes_back_after_its_delay_under_a_new_id(make: Callable[..., Child]) -> None:
    clock = FakeClock()
    fleet = Fleet(lambda name, attempt: make(SLEEP, f"{name}.r{attempt}"), ["a", "b"])
    assert [change.event for change in fleet.start(0.0)] == ["started", "started"]
    victim = fleet.children[0]
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: not victim.running)
    (crash,) = fleet.tick(clock.monotonic())
    assert (crash.event, crash.child.id, crash.code, crash.retry_s) == ("crashed", "a.r0", -9, 0.5)
    assert (fleet.running, fleet.pending) == (1, 1)
    assert fleet.tick(clock.advance(0.4)) == []
    (back,) = fleet.tick(clock.advance(0.2))
    assert (back.event, back.child.id) == ("restarted", "a.r1")
    assert (fleet.running, fleet.pending) == (2, 0)


def test_a_child_that_failed_is_told_with_its_own_last_error(make: Callable[..., Child]) -> None:
    codes = ["print('error: no such model', flush=True); raise SystemExit(2)", SLEEP]
    fleet = Fleet(lambda name, attempt: make(codes[attempt], name), ["a"], final=(3,))
    fleet.start(0.0)
    until(lambda: not fleet.running)
    fleet.seen(["a"])
    (crashed,) = fleet.tick(0.0)
    told = fleet.processes["a"]
    assert (crashed.event, told.phase) == ("crashed", "pending")
    assert told.reason == "exit code 2: no such model"
    fleet.tick(crashed.retry_s)
    assert (fleet.processes["a"].phase, fleet.processes["a"].reason) == ("running", "")


def test_a_child_that_cannot_work_is_reported_once_and_not_restarted(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make("import sys; sys.exit(2)"), ["a"])
    fleet.start(0.0)
    until(lambda: not fleet.running)
    (change,) = fleet.tick(0.0)
    assert (change.event, change.code) == ("hopeless", 2)
    assert fleet.tick(100.0) == []


def test_a_child_that_joined_once_is_restarted_even_after_exit_two(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make("import sys; sys.exit(2)", "a"), ["a"])
    fleet.start(0.0)
    fleet.seen(["a"])
    until(lambda: not fleet.running)
    assert [change.event for change in fleet.tick(0.0)] == ["crashed"]


def test_a_slot_that_is_added_is_started_and_looked_after(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make(SLEEP, f"{name}.r{attempt}"), ["a"])
    fleet.start(0.0)
    change = fleet.add("b", 0.0)
    assert (change.event, change.child.id, fleet.staying) == ("started", "b.r0", ["a", "b"])
    os.kill(change.child.pid, signal.SIGKILL)
    until(lambda: not change.child.running)
    assert [each.event for each in fleet.tick(0.0)] == ["crashed"]
    assert [each.child.id for each in fleet.tick(0.5)] == ["b.r1"]
    with pytest.raises(RuntimeError, match="slot b is there already"):
        fleet.add("b", 1.0)


def test_a_slot_that_drains_leaves_and_is_not_started_again(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make(SLEEP, name), ["a", "b"], keep=True)
    leaving = fleet.start(0.0)[0].child
    until(lambda: "up" in leaving.output())
    fleet.drain("a", 0.0, 60.0)
    assert fleet.staying == ["b"]
    until(lambda: not leaving.running)
    (change,) = fleet.tick(1.0)
    assert (change.event, change.name, change.code) == ("removed", "a", -signal.SIGTERM)
    assert (fleet.tick(100.0), list(fleet.processes), "a" in fleet) == ([], ["b"], False)
    assert fleet.add("a", 100.0).event == "started", "its name is free"


def test_a_slot_that_does_not_leave_in_time_is_killed(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make(STUBBORN, name), ["a"])
    child = fleet.start(0.0)[0].child
    until(lambda: "up" in child.output())
    fleet.drain("a", 0.0, 5.0)
    assert fleet.processes["a"].phase == "leaving"
    fleet.drain("a", 4.0, 5.0)  # asked again: it has no more time for that
    assert fleet.tick(4.9) == [] and child.running
    assert [(each.event, each.code) for each in fleet.tick(5.0)] == [("removed", -signal.SIGKILL)]


@pytest.mark.parametrize(("code", "phase"), [(1, "pending"), (0, "succeeded"), (2, "failed")])
def test_a_slot_without_a_process_is_removed_at_once(
    make: Callable[..., Child], code: int, phase: str
) -> None:
    fleet = Fleet(lambda name, attempt: make(f"import sys; sys.exit({code})", name), ["a"])
    child = fleet.start(0.0)[0].child
    until(lambda: not child.running)
    fleet.tick(0.0)
    told = fleet.processes["a"]
    assert (told.phase, told.reason) == (phase, f"exit code {code}" if code else "")
    fleet.drain("a", 0.0, 60.0)
    assert [each.event for each in fleet.tick(0.0)] == ["removed"]
    assert fleet.tick(100.0) == []


@pytest.mark.parametrize(
    ("serve", "code", "phase"),
    [
        (True, 143, "succeeded"),
        (True, -signal.SIGTERM, "succeeded"),
        (True, 1, "failed"),
        (False, 143, "failed"),
    ],
)
def test_who_serves_others_has_done_its_work_when_it_leaves_as_asked(
    make: Callable[..., Child], serve: bool, code: int, phase: str
) -> None:
    end = f"sys.exit({code})" if code > 0 else f"os.kill(os.getpid(), {-code})"
    fleet = Fleet(lambda name, attempt: make(f"import os, sys; {end}", name), ["a"], serve=serve)
    child = fleet.start(0.0)[0].child
    fleet.add("b", 0.0)
    until(lambda: not fleet.running)
    for told in fleet.processes.values():
        assert (told.phase, told.reason) == (phase, "" if phase == "succeeded" else describe_exit(code))
    assert child.poll() == code


def test_a_fleet_whose_last_slot_drains_has_not_settled_before_it_is_gone(make: Callable[..., Child]) -> None:
    fleet = Fleet(lambda name, attempt: make(SLEEP if name == "a" else "", name), ["a", "b"])
    first, second = (change.child for change in fleet.start(0.0))
    until(lambda: "up" in first.output() and not second.running)
    fleet.drain("a", 0.0, 60.0)
    fleet.tick(0.0)
    assert fleet.settled is (not first.running)
    until(lambda: not first.running)
    fleet.tick(0.0)
    assert fleet.settled
