"""The table of connected workers: who is here, who gets no work, and whose connection broke."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edldist.labels.fingerprint import Fingerprint
from edldist.student.queue.pings import Pings
from edldist.student.queue.quarantine import Quarantine
from edldist.student.service.kept.worker_labels import WorkerLabels
from edldist.wire.messages import Hello, Vouch
from edldist.wire.transport import Sender

__all__ = ["ConnectedWorker", "Peers"]

_MOST_DISCONNECTED = 1_000


@dataclass(slots=True, eq=False)
class ConnectedWorker:
    """A teacher worker that greeted this student.

    Attributes:
        peer: its address at the transport.
        key: the same, as the queue's name for it.
        name: what it calls itself, for a person to read.
        teacher: the name of its group.
        process: the uuid of its process.
        fingerprint: what it said of itself.
        last_heard, last_sent: when a message came from it, or went to it (monotonic seconds).
        pull_seen: number of its last pull, which was answered at once.
        room: what that one asked for.
        host: where it runs, as it says; for people.
        labelled: whether labels of it could be used.
        keep: puts its labels into the store, where there is one, and takes them back.
        aside: why it was put aside (``Comparing``); empty if it was not.
        constant: whether it was said that it answers everything alike.
        pings: those on their way to it.
    """

    peer: Sender
    name: str
    teacher: str
    process: str
    fingerprint: Fingerprint
    last_heard: float
    last_sent: float
    pull_seen: int = 0
    room: int = 1
    labelled: bool = False
    keep: WorkerLabels | None = None
    host: str = ""
    aside: str = ""
    constant: bool = False
    pings: Pings = field(default_factory=Pings)
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = f"{self.peer.key}{self.peer.route.decode('latin-1')}"


class Peers:
    """Teacher workers by their address. Pure; owned by the I/O thread, others may count."""

    def __init__(self) -> None:
        self._workers: dict[Sender, ConnectedWorker] = {}
        self._keys: dict[str, ConnectedWorker] = {}  # Invariant: the same workers, by their key
        self._quarantine = Quarantine()  # by key
        self._excluded: set[ConnectedWorker] = set()  # those that were told that they get no work
        # Invariant: whoever is in _quarantine or _excluded is here: who is dropped is forgotten there.
        self._disconnected: dict[Sender, str] = {}  # the processes behind connections that broke
        self._unreachable: dict[Sender, float] = {}  # dropped peers, and when they were

    # --- who is here ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[ConnectedWorker]:
        """All that are here now; the table may change meanwhile."""
        return iter(list(self._workers.values()))

    def get(self, peer: Sender) -> ConnectedWorker | None:
        return self._workers.get(peer)

    def of_key(self, key: str) -> ConnectedWorker:
        """The worker that the queue calls by this name."""
        return self._keys[key]

    def find(self, key: str) -> ConnectedWorker | None:
        """The same; None if it is not here any more."""
        return self._keys.get(key)

    def teachers(self) -> set[str]:
        """The groups of which a worker is here."""
        return {worker.teacher for worker in self}

    def namesakes(self, hello: Hello) -> list[ConnectedWorker]:
        """Other processes that call themselves as the one that greets does."""
        return [w for w in self if w.name == hello.worker and w.process != hello.process]

    def add(self, peer: Sender, hello: Hello, now: float) -> ConnectedWorker:
        """Note a worker that greets; whoever was here under this address must be dropped before."""
        assert peer not in self._workers
        worker = ConnectedWorker(
            *(peer, hello.worker, hello.teacher, hello.process, hello.fingerprint, now, now),
            host=hello.host,
        )
        self._workers[peer] = self._keys[worker.key] = worker
        return worker

    def vouched(self, sender: Sender, message: Vouch, now: float) -> None:
        """Count what a process says beside a worker as a sign of the worker's life."""
        for worker in self._workers.values():
            same = (worker.name, worker.process) == (message.id, message.process)
            if same and worker.peer.key == sender.key:
                worker.last_heard = now

    def drop(self, worker: ConnectedWorker) -> bool:
        """A worker is gone; whether it was here."""
        if self._workers.get(worker.peer) is not worker:
            return False
        del self._workers[worker.peer], self._keys[worker.key]
        self._quarantine.forget(worker.key)
        self._excluded.discard(worker)
        return True

    # --- broken connections -------------------------------------------------------------------------

    def cut_off(self, worker: ConnectedWorker, now: float) -> None:
        """A message to the worker could not be sent: it died, or its connection broke."""
        self._unreachable[worker.peer] = now
        self._disconnected[worker.peer] = worker.process
        if len(self._disconnected) > _MOST_DISCONNECTED:
            del self._disconnected[next(iter(self._disconnected))]

    def survived(self, peer: Sender, process: str) -> bool:
        """Whether who greets is the process behind a connection that broke, which so did not die."""
        return self._disconnected.pop(peer, None) == process

    def called_back(self, now: float, within_s: float) -> list[Sender]:
        """Addresses of those that were cut off no longer ago, and have not greeted since."""
        for peer, since in list(self._unreachable.items()):
            if peer in self._workers or now - since > within_s:
                del self._unreachable[peer]
        return list(self._unreachable)

    def reached(self, peer: Sender) -> None:
        """Somebody is connected again at an address that was cut off."""
        self._unreachable.pop(peer, None)

    # --- quarantine ---------------------------------------------------------------------------------

    def succeeded(self, worker: ConnectedWorker) -> None:
        """A worker's labels could be used."""
        self._quarantine.succeeded(worker.key)

    def failed(self, worker: ConnectedWorker, error: str, now: float) -> float | None:
        """A worker's model raised; seconds for which it gets no work from now on, if it keeps failing."""
        for_s = self._quarantine.failed(worker.key, error, now)
        return for_s if for_s is not None and self.quarantined(worker, now) else None

    def acquit(self, key: str) -> None:
        """A worker's model raised once because anybody's would have; it may be gone."""
        self._quarantine.acquit(key)

    def quarantined(self, worker: ConnectedWorker, now: float) -> str:
        """Why a worker gets no work, or nothing: a group in which nobody is in good standing gets some."""
        reason = self._quarantine.reason(worker.key, now)
        if reason is None:
            return ""
        others = (
            other
            for other in self._workers.values()
            if other is not worker and other.teacher == worker.teacher and not other.aside
        )
        return reason if any(self._quarantine.reason(o.key, now) is None for o in others) else ""

    def exclude(self, worker: ConnectedWorker) -> None:
        """A worker was told that it gets no work."""
        self._excluded.add(worker)

    def paroled(self, now: float) -> list[ConnectedWorker]:
        """Workers that may get work again, each once."""
        free = [worker for worker in self._excluded if not self.quarantined(worker, now)]
        self._excluded.difference_update(free)
        return free
