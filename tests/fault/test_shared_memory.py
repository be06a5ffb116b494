"""Shared memory between real processes: who may not share, who dies, and what is left behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edldist.errors import PeerUnreachableError
from edldist.wire.messages import Ack, Ping
from edldist.wire.transport import Received, Sender
from edldist.wire.zmq.endpoints import ZmqHub
from edldist.wire.zmq.poller import ZmqPoller
from edldist.wire.zmq.transport import ZmqTransport
from tests.fault.harness import FaultJob, Role, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
LARGE = 300_000

_PEER = """
import logging, os, resource, sys
import edldist.wire.shm.pairing
from edldist.wire.messages import Ack
from edldist.wire.zmq.transport import ZmqTransport
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
exec(sys.argv[2])
poller = ZmqTransport(1 << 24).poller()
link = poller.connect(sys.argv[1], "peer")
link.send(Ack(seq=0))
while True:
    poller.wait(1)
    while (received := link.receive()) is not None:
        link.send(received.message, received.frames)
        del received
"""


class Echo:
    """A hub here, and a process that sends back what it gets."""

    def __init__(self, folder: Path, setting: str = "", prefix: tuple[str, ...] = ()) -> None:
        self.poller: ZmqPoller = ZmqTransport(1 << 24, shared_memory=True).poller()
        self.hub: ZmqHub = self.poller.bind("tcp://127.0.0.1:0")
        self.log = folder / "peer.log"
        command = [*prefix, sys.executable, "-c", _PEER, self.hub.address, setting]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stderr=log, env={**os.environ, "EDLDIST_SHARED_MEMORY": "1"}
            )
        self.take()

    def take(self) -> Received:
        deadline = time.monotonic() + 90
        while (received := self.hub.receive()) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "no answer within 30 s"
            self.poller.wait(0.05)
        return received

    def round(self, frame: bytes) -> None:
        self.hub.send(Sender(b"peer"), Ack(seq=1), [frame])
        assert bytes(self.take().frames[0]) == frame

    @property
    def paired(self) -> bool:
        pairing = self.hub._pairings.get(b"peer")
        return pairing is not None and pairing.paired

    def pair(self) -> Echo:
        deadline = time.monotonic() + 90
        while not self.paired:
            assert time.monotonic() < deadline
            self.round(os.urandom(LARGE))
        return self

    def close(self) -> None:
        self.poller.close()
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                child.kill()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def echo(folder: Path, setting: str = "", prefix: tuple[str, ...] = ()) -> Iterator[Echo]:
    made = Echo(folder, setting, prefix)
    try:
        yield made
    finally:
        made.close()


MemoryFile = tuple[str, int]
"""A file by its device and inode: files of /dev/shm and those without a name count on their own."""


def memory_file(status: os.stat_result) -> MemoryFile:
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", status.st_ino


def memory_files(pids: list[int]) -> set[MemoryFile]:
    """The memory files that some processes have open or mapped."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                if "/memfd:edldist" in line or "/dev/shm/torch_" in line:
                    _, _, _, device, inode, *_ = line.split()
                    found.add((device, int(inode)))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                    if target.startswith(("/memfd:edldist", "/dev/shm/torch_")):
                        found.add(memory_file(os.stat(f"/proc/{pid}/fd/{fd}")))
    return found


def everybody() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def test_two_processes_of_one_user_share(tmp_path: Path) -> None:
    with echo(tmp_path) as peer:
        peer.pair()

        def said() -> bool:
            peer.round(os.urandom(LARGE))  # the other side's half of the pairing may take another message
            return "is on this host: tensors go through shared memory" in peer.log.read_text()

        wait_for("the peer to say that it shares", said)

        def both_ways() -> bool:
            peer.round(os.urandom(LARGE))
            return len(memory_files([peer.process.pid]) & memory_files([os.getpid()])) >= 2

        wait_for("slabs of both directions, mapped by both", both_ways)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_process_of_another_user_goes_through_the_socket(tmp_path: Path) -> None:
    # Its interpreter may lie where that user cannot read: what it reads a limit with is loaded before.
    alike = "import codecs; codecs.lookup('ascii'); os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    with echo(tmp_path, alike) as peer:
        for number in range(5):
            peer.round(bytes([number]) * LARGE)
        assert not peer.paired
        assert peer.log.read_text().count("go through the socket (") == 1


def _pid_namespaces() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not _pid_namespaces(), reason="this process may not make process namespaces")
def test_a_process_of_another_container_goes_through_the_socket(tmp_path: Path) -> None:
    with echo(tmp_path, prefix=("unshare", "--pid", "--fork", "--mount-proc")) as peer:
        for number in range(5):
            peer.round(bytes([number]) * LARGE)
        assert not peer.paired
        assert peer.log.read_text().count("go through the socket (") == 1


@pytest.mark.parametrize(
    ("limit", "said"),
    [("RLIMIT_FSIZE, (4096, 4096)", "cannot make a memory file"), ("RLIMIT_NOFILE, (40, 40)", "ulimit -n")],
    ids=["file size", "descriptors"],
)
def test_a_process_with_too_little_of_something_still_answers(tmp_path: Path, limit: str, said: str) -> None:
    with echo(tmp_path, f"resource.setrlimit(resource.{limit})") as peer:
        held = []
        for number in range(30):
            frame = os.urandom(LARGE + 300_000 * (number % 3))
            peer.hub.send(Sender(b"peer"), Ack(seq=number), [frame])
            held.append(peer.take())
            assert bytes(held[-1].frames[0]) == frame
        warnings = [line for line in peer.log.read_text().splitlines() if line.startswith("WARNING")]
        assert len(warnings) == 1 and said in warnings[0]


def test_a_process_with_few_descriptors_loses_no_message_when_many_come_at_once(tmp_path: Path) -> None:
    with echo(tmp_path, "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))") as peer:
        peer.pair()
        peer.process.send_signal(signal.SIGSTOP)
        frames = [os.urandom(LARGE) for _ in range(12)]
        for number, frame in enumerate(frames):
            peer.hub.send(Sender(b"peer"), Ack(seq=number), [frame])
        assert len(peer.hub._pairings[b"peer"]._pool) == 8, "as many files as there may be"
        peer.process.send_signal(signal.SIGCONT)
        answers = [peer.take() for _ in frames]
        assert [bytes(answer.frames[0]) for answer in answers] == frames
        assert "ulimit -n" in peer.log.read_text()


def test_a_killed_process_leaves_no_memory_and_is_given_up(tmp_path: Path) -> None:
    with echo(tmp_path) as peer:
        peer.pair()
        received = []
        for _ in range(3):
            peer.hub.send(Sender(b"peer"), Ack(seq=1), [b"k" * LARGE])
            received.append(peer.take())
        inodes = memory_files([peer.process.pid])
        assert inodes
        peer.process.send_signal(signal.SIGKILL)
        peer.process.wait()

        def gone() -> bool:
            peer.poller.wait(0.01)
            try:
                peer.hub.send(Sender(b"peer"), Ping(seq=1, buffered=0))
            except PeerUnreachableError:
                return True
            return False

        wait_for("the dead peer to be unreachable", gone)
        assert bytes(received[0].frames[0]) == b"k" * LARGE, "what came from it stays"
        received.clear()

        def clean() -> bool:
            peer.poller.wait(0.01)
            page = {memory_file(os.fstat(peer.poller._sharing._page[0]))}
            return not inodes & (memory_files(everybody()) - page)

        wait_for("its memory to be gone", clean)


def test_a_frozen_process_holds_up_nobody_and_costs_no_more_than_the_bound(tmp_path: Path) -> None:
    with echo(tmp_path) as peer:
        peer.pair()
        peer.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for _ in range(20):
            peer.hub.send(Sender(b"peer"), Ack(seq=1), [b"f" * LARGE])
        assert time.monotonic() - began < 5
        assert len(peer.hub._pairings[b"peer"]._pool) == 8
        peer.process.send_signal(signal.SIGCONT)
        assert all(bytes(peer.take().frames[0]) == b"f" * LARGE for _ in range(20))


_STUDENT = """
import os, sys, time
import torch
from torch.utils.data import DataLoader
import edldist
from tests.fault.pictures import Pictures, check
collate = edldist.collate if sys.argv[2] == "slots" else None
loader = DataLoader(Pictures(), batch_size=32, num_workers=2, collate_fn=collate)
with edldist.DistillLoader(loader, inputs="picture") as batches:
    for step, (batch, labels) in enumerate(batches):
        check(batch, labels)
        open(sys.argv[1], "w").write(str(step))
        time.sleep(0.02)
"""


def _children(roles: list[Role]) -> list[int]:
    return [p.pid for role in roles for p in (psutil.Process(role.pid), *role.tree())]


@pytest.mark.parametrize(
    ("place", "mapped"), [("files", r"rw-p .*/dev/shm/torch_"), ("slots", r"rw-p .*/memfd:edldist")]
)
def test_a_killed_run_leaves_shared_memory_empty(tmp_path: Path, place: str, mapped: str) -> None:
    """Batches of data-loader workers, slabs of both sides: all of it goes with the processes."""
    named = set(os.listdir("/dev/shm"))
    job = FaultJob(tmp_path, model="tests.fault.pictures:teacher")
    try:
        job.coordinator()
        workers = [job.teacher(f"t-{number}", batch_size=16) for number in range(2)]
        steps = tmp_path / "steps"
        (tmp_path / "student.py").write_text(_STUDENT)
        env = {"EDLDIST_COORDINATOR": job.address, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (tmp_path / "student.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(tmp_path / "student.py"), str(steps), place],
                env={**os.environ, **env},
                stdout=log,
                stderr=log,
            )
        student = Role("student", process, tmp_path / "student.log")

        def trained() -> bool:
            assert student.alive, student.tail()
            return steps.exists() and int(steps.read_text() or 0) >= 20

        try:
            wait_for("some steps", trained, 90)
            roles = [*workers, student]
            inodes = memory_files(_children(roles))
            lent = [
                line
                for worker in workers
                for line in Path(f"/proc/{worker.pid}/maps").read_text().splitlines()
                if re.search(mapped, line)
            ]
            assert lent, "workers read batches where the data loader's processes put them"
            assert len(inodes) >= 4
        finally:
            pids = _children([student])
            for pid in pids:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        for worker in workers:
            worker.kill()
        wait_for("all memory of the run to be gone", lambda: not inodes & memory_files(everybody()))
        left = {name for name in set(os.listdir("/dev/shm")) - named if "faketime" not in name}
        assert not {name for name in left if any(f"_{pid}_" in name for pid in pids)}
    finally:
        job.close()
