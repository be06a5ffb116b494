"""What a coordinator costs: thousands of members on real sockets, each with its registration and heartbeats.

``python -m edldist_benchmarks.members --members 1000``. The coordinator is a process of its own, as in a job;
this one plays all members, by the state machine that real ones use (``edldist.wire.enrolment``), and its
own cost counts for nothing. A tenth of them are students, so past 160 members the links are of bounded
degree.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import logging
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from edldist.wire.enrolment import Enrolment
from edldist.wire.messages import Links, MemberStatus, Register, decode, encode
from edldist.wire.query import StatusClient
from edldist_benchmarks.processes import EDLDIST, Processes, wait_until
from edldist_benchmarks.speakers import Speaker

__all__ = ["Crowd", "measure"]

STUDENT_SHARE = 0.1
MAX_STUDENTS_PER_WORKER = 16
BUDGET_PERCENT = 5.0
CONNECT_TIMEOUT_S = 300.0
_TURN_S = 0.005
_START_S = 120.0


class _Member(Speaker):
    """One simulated process: a socket, and what it last heard."""

    def __init__(self, number: int, is_student: bool, socket: zmq.Socket[bytes], coordinator: str) -> None:
        super().__init__(number, is_student)
        self.socket = socket
        self.joins = 0
        self.latency_s = 0.0
        self._began = time.monotonic()
        self.enrolment = Enrolment(
            self.id, self.registration, self.heartbeat, coordinator, CONNECT_TIMEOUT_S, self._began
        )

    def turn(self, now: float) -> float:
        """Read, send what is due, and say when to look again (monotonic seconds)."""
        self.read(now)
        for message in self.enrolment.due(now):
            if isinstance(message, Register):
                self._began = now
            self.socket.send(encode(message), zmq.NOBLOCK)
        wait_s = self.enrolment.next_due_s(now)
        return now + (wait_s if self.enrolment.joined else min(wait_s, 0.02))

    def read(self, now: float) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                message = decode(self.socket.recv(zmq.NOBLOCK))
                if isinstance(message, Links):
                    self.links = message
                elif self.enrolment.on_message(message, now, time.time()):
                    self.joins += 1
                    self.latency_s = now - self._began


class Crowd:
    """Members of one coordinator, turned by the thread that made them; a context manager."""

    def __init__(self, coordinator: str, members: int) -> None:
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, members + 16)
        self.members: list[_Member] = []
        now = time.monotonic()
        for number in range(members):
            socket = self._context.socket(zmq.DEALER)
            is_student = number % round(1 / STUDENT_SHARE) == 0
            member = _Member(number, is_student, socket, coordinator)
            socket.setsockopt(zmq.ROUTING_ID, member.id.encode())
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 50)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            socket.connect(coordinator)
            self.members.append(member)
        random.Random(0).shuffle(self.members)
        self._due = [(now, number) for number in range(members)]

    def turn(self) -> None:
        """Let everyone act who is due, then pause for a moment."""
        now = time.monotonic()
        while self._due[0][0] <= now:
            _, number = self._due[0]
            heapq.heapreplace(self._due, (self.members[number].turn(now), number))
        time.sleep(_TURN_S)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def joined(self, times: int = 1) -> bool:
        self.turn()
        return all(member.joins >= times and member.enrolment.joined for member in self.members)

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *error: object) -> None:
        self._context.destroy(0)


def measure(members: int = 1000, seconds: float = 10.0) -> dict[str, object]:
    """Let members join all at once, beat once a second, and come back to a restarted coordinator.

    Args:
        members: how many.
        seconds: how long the steady state is watched.

    Returns:
        ``cpu_percent`` of one core that the coordinator takes at 1 Hz a member, with ``budget`` beside
        it for a thousand; ``join_s`` and ``rejoin_s`` until all were in, ``join_cpu_s`` what that cost;
        ``lost`` members that the coordinator wrote off meanwhile (must be 0); ``links_max`` and
        ``servers_min``, ``servers_max``: students of a worker, and workers of a student;
        ``links_moved``: links that the restart changed.

    Raises:
        TimeoutError: not everyone came in.
    """
    logging.getLogger("edldist.wire.enrolment").setLevel(logging.ERROR)  # one line of each is too many
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        pid, address = _coordinator(processes, "tcp://127.0.0.1:0")
        with Crowd(address, members) as crowd:
            join_s, join_cpu_s = _join(crowd, pid, 1)
            _settle(crowd, address)
            before = _links(address)
            cpu_percent = _watch(crowd, pid, seconds)
            lost = _lost(address)
            os.kill(pid, 9)
            wait_until("its death", lambda: not psutil.pid_exists(pid) or _is_dead(pid))
            pid, _ = _coordinator(processes, address)
            rejoin_s, rejoin_cpu_s = _join(crowd, pid, 2)
            _settle(crowd, address)
            after = _links(address)
            lost += _lost(address)
            rss_mib = psutil.Process(pid).memory_info().rss / 2**20
    servers = [len(m.links) for m in after.values() if m.role == "student"]
    return {
        "name": f"coordinator, {members} members at 1 Hz",
        "members": members,
        "seconds": seconds,
        "cpu_percent": cpu_percent,
        "cpu_us_per_beat": cpu_percent / 100 / members * 1e6,
        "budget": BUDGET_PERCENT if members <= 1000 else None,
        "join_s": join_s,
        "join_cpu_s": join_cpu_s,
        "rejoin_s": rejoin_s,
        "rejoin_cpu_s": rejoin_cpu_s,
        "lost": lost,
        "links_max": max(len(m.links) for m in after.values() if m.role == "teacher"),
        "servers_min": min(servers),
        "servers_max": max(servers),
        "links_moved": sum(
            len(set(m.links) - set(before[i].links)) for i, m in after.items() if m.role == "teacher"
        ),
        "rss_mib": rss_mib,
    }


def _coordinator(processes: Processes, bind: str) -> tuple[int, str]:
    ready = processes.folder / "crowd-coordinator.json"
    ready.unlink(missing_ok=True)
    command = ["coordinator", "--bind", bind, "--http", "127.0.0.1:0", "--address-file", str(ready)]
    process = processes.start("crowd-coordinator", *EDLDIST, *command)
    wait_until("the coordinator", ready.exists)
    return process.pid, str(json.loads(ready.read_text())["address"])


def _is_dead(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _join(crowd: Crowd, pid: int, times: int) -> tuple[float, float]:
    """Seconds until everyone is in, and the coordinator's CPU seconds for it."""
    began, cpu_s = time.monotonic(), _cpu_s(pid)
    wait_until("all members to join", lambda: crowd.joined(times), _START_S)
    return time.monotonic() - began, _cpu_s(pid) - cpu_s


def _settle(crowd: Crowd, address: str) -> None:
    """Until every worker has complete links, and the coordinator is past the work that follows a storm."""
    workers = [member for member in crowd.members if not member.is_student]

    def complete() -> bool:
        crowd.turn()
        return all(w.links is not None and w.links.complete and w.links.students for w in workers)

    wait_until("complete links", complete, _START_S)
    crowd.run(2.0)


def _watch(crowd: Crowd, pid: int, seconds: float) -> float:
    began, cpu_s = time.monotonic(), _cpu_s(pid)
    crowd.run(seconds)
    return 100 * (_cpu_s(pid) - cpu_s) / (time.monotonic() - began)


def _status(address: str) -> Iterator[MemberStatus]:
    with contextlib.closing(StatusClient(address)) as client:
        yield from client.query(timeout_s=10.0).members


def _links(address: str) -> dict[str, MemberStatus]:
    return {member.id: member for member in _status(address)}


def _lost(address: str) -> int:
    count, since = 0, 0
    with contextlib.closing(StatusClient(address)) as client:
        while (status := client.query(since, timeout_s=10.0)).seq > since and status.records:
            since = status.seq
            count += sum(getattr(record, "event", "").endswith("_lost") for record in status.records)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    print(json.dumps(measure(options.members, options.seconds), indent=2))


if __name__ == "__main__":
    main()
