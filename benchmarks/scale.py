"""What a coordinator carries and computes as a fleet grows, from its pure cores: ``python -m
edldist_benchmarks.scale``.

Nothing is connected. Members register with a ``Membership`` and beat in a simulated clock, the links are
those of ``assign``, messages are encoded and counted in bytes, and what each step takes of the CPU is
measured here. Sockets
come on top: what a member costs on real ones is the row ``coordinator`` of the benchmarks.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from edldist.coordinator.course.records import Records
from edldist.coordinator.links.assignment import StudentRank, TeacherWorker, assign
from edldist.coordinator.members.membership import Membership
from edldist.coordinator.scaling.load import loads
from edldist.coordinator.scaling.scaling import Bounds, Scaling
from edldist.coordinator.status import StatusView
from edldist.wire.messages import (
    Ack,
    Heartbeat,
    Links,
    NodeQuery,
    NodeStatus,
    Peer,
    RankStatus,
    decode,
    encode,
)
from edldist_benchmarks.speakers import Speaker

__all__ = ["Scale", "measure"]

T = TypeVar("T")

FLEETS = ((100, 16), (1_000, 128), (10_000, 1_024), (30_000, 3_072), (100_000, 10_240))
"""Workers and ranks."""
DEGREE = 16
RANKS_A_NODE = 8
LOOKS_A_SECOND = 2
"""How often the supervisor of a student node asks for its own ranks."""
LOST = 10
"""Workers that are lost at once before links are assigned anew."""
ANSWERED_S = 2.0
"""In a crowd a member is answered so seldom that it never wonders."""
LINKS_REPEATED_S = 15.0


@dataclass(frozen=True)
class Scale:
    """One size of fleet.

    Attributes:
        workers, ranks: how many.
        links: between them.
        messages_in, messages_out: a second.
        bytes_in, bytes_out: a second, without what TCP adds.
        heartbeats_share: of a core, for the heartbeats, without sockets.
        first_s, again_s: to assign all links at first, and after some workers were lost.
        scaling_s: to decide how many are wanted.
        status_bytes, status_s: of one answer with the whole state.
    """

    workers: int
    ranks: int
    links: int
    messages_in: float
    messages_out: float
    bytes_in: float
    bytes_out: float
    heartbeats_share: float
    first_s: float
    again_s: float
    scaling_s: float
    status_bytes: int
    status_s: float

    def row(self) -> str:
        """For a table in Markdown."""
        return (
            f"| {self.workers:,} | {self.ranks:,} | {self.links:,} | {self.messages_in:,.0f} / "
            f"{self.messages_out:,.0f} | {self.bytes_in / 1e6:.2f} / {self.bytes_out / 1e6:.2f} | "
            f"{self.heartbeats_share:.1%} | {self.first_s:.2f} | {self.again_s:.2f} | {self.scaling_s:.2f} | "
            f"{self.status_bytes / 1e6:.1f} MB, {self.status_s:.2f} s |"
        )


def measure(workers: int, ranks: int) -> Scale:
    """Build a fleet of such a size, let it beat once, and count."""
    members = Membership("life", 1.0, 3.0, 0.0)
    speakers = [Speaker(number, number >= workers) for number in range(workers + ranks)]
    for speaker in speakers:
        members.register(speaker.id.encode(), speaker.registration(False), 1.0, 0.0)  # type: ignore[arg-type]
    teachers = {s.id: TeacherWorker("teacher") for s in speakers if not s.is_student}
    students = {s.id: StudentRank(["teacher"]) for s in speakers if s.is_student}
    links, first_s = _timed(lambda: assign(teachers, students, DEGREE))
    kept = {name: TeacherWorker("teacher", 1.0, links[name]) for name in list(teachers)[LOST:]}
    _, again_s = _timed(lambda: assign(kept, students, DEGREE))
    for name, served in links.items():
        members.members[name].links = served
    beats = [encode(speaker.heartbeat()) for speaker in speakers]

    def hear() -> None:
        for speaker, beat in zip(speakers, beats, strict=True):
            message = decode(beat)
            assert isinstance(message, Heartbeat)
            members.heartbeat(speaker.id.encode(), message, 2.0)  # type: ignore[arg-type]

    _, heartbeats_s = _timed(hear)
    scaling = Scaling({"teacher": Bounds.parse("1:10000")})
    scaling.decide({}, 0.0)
    _, scaling_s = _timed(lambda: scaling.decide(loads(members.members.values()), 5.0))
    view = StatusView("life", 0.0, members, Records(), scaling)
    status, status_s = _timed(lambda: msgspec.msgpack.encode(view.whole(3.0, 0)))
    looks = ranks / RANKS_A_NODE * LOOKS_A_SECOND
    asked, answered = _look(speakers[-RANKS_A_NODE:])
    peers = [
        Peer(id=f"student-{n:05d}", address=f"tcp://10.0.0.{n}:30000") for n in range(min(DEGREE, ranks))
    ]
    order = len(encode(Links(students=peers, complete=True)))
    repeated = workers / LINKS_REPEATED_S
    total = workers + ranks
    return Scale(
        workers,
        ranks,
        sum(map(len, links.values())),
        messages_in=total + looks,
        messages_out=total / ANSWERED_S + looks + repeated,
        bytes_in=sum(map(len, beats)) + looks * asked,
        bytes_out=total / ANSWERED_S * len(encode(Ack(seq=0))) + looks * answered + repeated * order,
        heartbeats_share=heartbeats_s,
        first_s=first_s,
        again_s=again_s,
        scaling_s=scaling_s,
        status_bytes=len(status),
        status_s=status_s,
    )


def _look(ranks: Sequence[Speaker]) -> tuple[int, int]:
    """Bytes of a supervisor's question for its own ranks, and of the answer."""
    question = NodeQuery(processes=[rank.id for rank in ranks], since=1000)
    answers = [RankStatus(process=rank.id, stats=rank.heartbeat().stats) for rank in ranks]
    answer = NodeStatus(incarnation="0" * 16, ranks=answers, lost=[], seq=1000)
    return len(encode(question)), len(encode(answer))


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    """CPU seconds of this thread."""
    gc.collect()
    began = time.thread_time()
    found = work()
    return found, time.thread_time() - began


def main() -> None:
    """Print the table."""
    print(
        "| workers | ranks | links | messages/s in / out | MB/s in / out | heartbeats, of a core | ", end=""
    )
    print("links at first, s | after losses, s | wanted numbers, s | whole status |")
    print("|---" * 10 + "|")
    for workers, ranks in FLEETS[: int(sys.argv[1]) if len(sys.argv) > 1 else len(FLEETS)]:
        print(measure(workers, ranks).row(), flush=True)


if __name__ == "__main__":
    main()
