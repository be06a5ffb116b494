"""Where the nodes of a student run meet: who is in its next generation, and with which ranks. Pure.

A node's agent reports what it wants and which generation it is in, again and again (``NodeReport``). From
these reports alone this decides when a generation forms::

    joining --a generation forms--> member --its ranks ended--> finished
       ^                              |
       +--- wants to be in the next --+        silent for LEASE_S, or said so: gone

A generation forms when nobody *holds* the former one any more (lives, and stays in it), at least ``least``
nodes want to be in the next, and others had a moment to come too, or there are ``most``. While nodes wait and
the former is not full, its holders are told how many: their agents end their ranks and join.

Nothing outlives the coordinator. A fresh one knows no run, learns of the standing generation from whoever is
in it, believes that its other nodes live until they had time to report too, and forms no generation before
that. So a running group is never restarted for it, nor a second one formed beside it. If a
node still comes too late and a second one was formed, the one with the higher number stays.

Who dies when: a node that waits is forgotten. One that holds a generation is *gone*: those who wait need no
longer wait for it, and the others notice by their collectives, or are told by ``membership``. One that was
given a rank and dies before its ranks start is gone like one that had started.

In a *live* run each rank stands for itself, and goes on in process: "node" reads "rank" there. A generation
forms as soon as nobody holds the former one, since one that comes later costs the others little; whoever is
left goes on, fewer than ``least`` too. That a rank died its supervisor says at once; what the dead one had
under way to us may come after that, and is not taken for a life of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from edldist.coordinator.members.membership import Send
from edldist.ranks.placement import named_run
from edldist.wire.messages import Generation, GroupNode, NodeReport, RunView
from edldist.wire.transport import Sender

__all__ = ["Rendezvous"]

logger = logging.getLogger(__name__)

LEASE_S = 3.0
"""Silence after which a node is gone. Agents report every second."""
UNREACHABLE_S = 1.0
"""The same for a node whose connection is gone, as a killed agent's is; a broken one is made anew by then."""
FIRST_CALL_S = 1.0
"""How long a run's first generation waits for more nodes once there are enough: who starts nodes does so at
about the same time, and one that comes later makes all others start again."""
NEXT_CALL_S = 0.2
"""The same for every other generation, whose nodes were all told to come."""
SETTLE_S = 3.0
"""A fresh coordinator forms no generation before everyone had this long to report."""
PROBE_S = 0.25
FORGET_S = 600.0
MAX_RUNS = 256
MAX_NODES = 1024
MAX_TABLE_BYTES = 64 << 10
"""Of these and of the names of its nodes, a run's view always fits one header."""
MAX_SHOWN = 300
"""Characters of a job in an error."""


@dataclass
class _Node:
    peer: Sender
    report: NodeReport
    last_seen: float
    answered: bool = False
    owner: str = ""
    """The name of the key that it first reported with; empty without keys."""

    @property
    def ended(self) -> bool:
        return self.report.state in ("finished", "left")


@dataclass
class _Run:
    """One run. Invariant: ``generation.nodes`` have distinct processes."""

    first: NodeReport
    active_at: float
    # In the order of their first reports.
    nodes: dict[str, _Node] = field(default_factory=dict)
    generation: Generation | None = None
    ours: bool = False
    """Whether this coordinator formed the generation; else nodes told of it."""
    learned_at: float = float("-inf")
    call_since: float | None = None
    closed: bool = False
    told: RunView | None = None
    due_at: float = float("-inf")
    """Monotonic seconds at which to look at it though nobody changed anything."""
    left: dict[str, float] = field(default_factory=dict)
    """Ranks of a live run that are said to be gone, and since when: for ``LEASE_S``."""

    @property
    def least(self) -> int:
        """How many the next generation has at least."""
        return 1 if self.first.live and self.generation is not None else self.first.least

    def due(self, at: float) -> None:
        self.due_at = min(self.due_at, at)


class Rendezvous:
    """Decides about all runs. Owned by the coordinator's main thread.

    ``report`` takes messages in; ``decide``, called after them and by ``due_at`` at the latest, answers.

    Args:
        incarnation: name of this coordinator's life.
        now: monotonic seconds at the start.
    """

    def __init__(self, incarnation: str, now: float) -> None:
        self._incarnation = incarnation
        self._settled_at = now + SETTLE_S
        self._runs: dict[str, _Run] = {}
        self._peers: dict[Sender, tuple[str, str]] = {}
        self._answers: list[Send] = []
        self._formed = 0
        self.generations = 0
        """How many have become the newest of their runs here, formed or learned of."""
        self._decided_at = now
        self._planned_at = float("inf")

    def due_at(self) -> float:
        """Monotonic seconds at which to decide although no message came."""
        return min((run.due_at for run in self._runs.values()), default=float("inf"))

    def report(self, peer: Sender, message: NodeReport, now: float, owner: str = "") -> None:
        """Note what a node says; ``decide`` answers it.

        Args:
            owner: the name of the key that the sender proved to have. While a node is here, nobody with
                another key speaks for it.
        """
        run = self._runs.get(message.run)
        reason = self._objection(run, message)
        if reason is not None:
            self._answers.append(Send(peer, RunView(run=message.run, seq=message.seq, refused=reason)))
            return
        if run is None or not _same_job(run, message):
            run = self._runs[message.run] = _Run(message, now)
        process = message.node.process
        node = run.nodes.get(process)
        if node is not None and node.owner != owner:
            reason = f"node {process} of run {message.run} is here with another key, and speaks for itself"
            self._answers.append(Send(peer, RunView(run=message.run, seq=message.seq, refused=reason)))
            return
        if node is not None and message.seq < node.report.seq:
            return  # it waited in a queue that was made for a former coordinator
        if now - run.left.get(process, float("-inf")) < LEASE_S and message.state != "left":
            return
        if node is not None and (message.seq, peer) == (node.report.seq, node.peer) and run.told is not None:
            node.last_seen = now
            self._answers.append(Send(peer, _answer(run.told, message)))
            return
        if node is None:
            node = run.nodes[process] = _Node(peer, message, now, owner=owner)
        node.peer, node.report, node.last_seen, node.answered = peer, message, now, False
        self._peers[peer] = message.run, process
        run.due(now)
        generation = message.generation
        if generation is not None and _is_newer(generation, run):
            logger.info("run %s: learned of generation %d from %s", message.run, generation.number, process)
            run.generation, run.ours, run.learned_at = generation, False, now
            self.generations += 1

    def over(self, run: str, number: int) -> str:
        """That a generation of a run is over, in words; empty if it is the newest, as far as is known here.

        Args:
            run, number: as its ranks call them (``edldist.ranks.placement``).
        """
        for run_id, known in self._runs.items():
            newest = known.generation
            if newest is not None and named_run(run_id) == run and newest.number > number:
                return f"generation {number} of run {run} is over: {newest.number} followed it"
        return ""

    def unreachable(self, peer: Sender, now: float) -> None:
        """A node's connection is gone; it has ``UNREACHABLE_S`` to make another."""
        run_id, process = self._peers.get(peer, ("", ""))
        run = self._runs.get(run_id)
        if run is not None and process in run.nodes:
            node = run.nodes[process]
            node.last_seen = min(node.last_seen, now - LEASE_S + UNREACHABLE_S)

    def decide(self, now: float) -> list[Send]:
        """Form what can be formed, and tell everyone whom it concerns."""
        if now - self._planned_at > LEASE_S / 2:
            self._excuse(now - self._decided_at, now)
        self._decided_at = now
        actions, self._answers = self._answers, []
        for run_id, run in list(self._runs.items()):
            if now >= run.due_at:
                actions += self._decide(run_id, run, now)
        self._planned_at = self.due_at()
        return actions

    # --- one run ------------------------------------------------------------------------------

    def _decide(self, run_id: str, run: _Run, now: float) -> Iterator[Send]:
        run.due_at = float("inf")
        self._forget_silent(run, now)
        if _lives(run):
            run.active_at = now
        elif now - run.active_at > FORGET_S:
            del self._runs[run_id]
            return
        else:
            run.due(run.active_at + FORGET_S + 1)
        holders, joiners = self._holders(run, now), self._joiners(run)
        self._close_finished(run_id, run, holders, joiners)
        if self._may_form(run, holders, joiners, now):
            self._form(run_id, run, joiners)
            holders, joiners = self._holders(run, now), self._joiners(run)
        view = self._view(run_id, run, holders, joiners)
        changed = view != run.told
        run.told = view
        # Who holds up others is told so again and again: a killed agent shows by its broken connection.
        held_up = bool(joiners and holders)
        if held_up:
            run.due(now + PROBE_S)
        for process, node in list(run.nodes.items()):
            if changed or not node.answered or (held_up and process in holders):
                yield Send(node.peer, _answer(view, node.report))
                node.answered = True
            if node.report.state == "left":
                if node.report.live:
                    run.left = {name: at for name, at in run.left.items() if now - at < LEASE_S} | {
                        process: now
                    }
                del run.nodes[process]
                self._peers.pop(node.peer, None)

    def _may_form(self, run: _Run, holders: set[str], joiners: list[_Node], now: float) -> bool:
        enough = not run.closed and not holders and len(joiners) >= run.least
        if not enough:
            run.call_since = None
            return False
        if run.call_since is None:
            run.call_since = now
        call_s = FIRST_CALL_S if run.generation is None else 0.0 if run.first.live else NEXT_CALL_S
        due = now if len(joiners) >= run.first.most else run.call_since + call_s
        due = max(due, self._settled_at)
        if now < due:
            run.due(due)
        return now >= due

    def _form(self, run_id: str, run: _Run, joiners: list[_Node]) -> None:
        former = [] if run.generation is None else [node.process for node in run.generation.nodes]
        ranked = {process: place for place, process in enumerate(former)}
        joiners.sort(key=lambda node: ranked.get(node.report.node.process, len(ranked)))
        number = 1 if run.generation is None else run.generation.number + 1
        self._formed += 1
        self.generations += 1
        nodes = [node.report.node for node in joiners[: run.first.most]]
        run.generation = Generation(number=number, token=f"{self._incarnation}.{self._formed}", nodes=nodes)
        run.ours, run.learned_at, run.call_since = True, float("-inf"), None
        logger.info(
            "run %s: generation %d has %d nodes, %d ranks: %s",
            *(run_id, number, len(nodes), sum(node.ranks for node in nodes)),
            ", ".join(f"{node.host} ({node.process[:8]})" for node in nodes),
        )
        if len({_is_loopback(node.host) for node in nodes}) > 1:
            logger.warning(
                "run %s: %s is an address of its own host only, and other nodes have others. Give all nodes "
                "the same --coordinator address, or EDLDIST_ADVERTISE",
                *(run_id, next(node.host for node in nodes if _is_loopback(node.host))),
            )

    def _close_finished(self, run_id: str, run: _Run, holders: set[str], joiners: list[_Node]) -> None:
        """A run is over when some of its last generation are done, and the others cannot go on alone."""
        if run.closed or run.generation is None:
            return
        members = {node.process for node in run.generation.nodes}
        if not any(run.nodes[process].report.state == "finished" for process in members & run.nodes.keys()):
            return
        others = members & (holders | {node.report.node.process for node in joiners})
        if not others or len(holders) + len(joiners) < run.least:
            run.closed = True
            logger.info("run %s has ended", run_id)

    def _view(self, run_id: str, run: _Run, holders: set[str], joiners: list[_Node]) -> RunView:
        generation = run.generation
        members: list[GroupNode] = [] if generation is None else generation.nodes
        here = [(member.process, run.nodes.get(member.process)) for member in members]
        gone = [
            process
            for process, node in here
            if process not in holders and not (node is not None and node.report.state == "finished")
        ]
        values, counts = _table(
            node.report
            for _, node in here
            if node is not None and node.report.state != "joining" and _is_in(node.report, generation)
        )
        full = len(holders) >= run.first.most
        return RunView(
            run=run_id,
            seq=0,
            generation=generation,
            gone=gone,
            whole=all(node is not None or process in gone for process, node in here),
            waiting=0 if full or not holders else len(joiners),
            closed=run.closed,
            values=values,
            counts=counts,
        )

    # --- who is here --------------------------------------------------------------------------

    def _holders(self, run: _Run, now: float) -> set[str]:
        """Nodes of the standing generation that live, as far as is known, and stay in it."""
        holders = set()
        for member in run.generation.nodes if run.generation is not None else ():
            node = run.nodes.get(member.process)
            if node is None:
                if now < run.learned_at + LEASE_S:
                    holders.add(member.process)
                    run.due(run.learned_at + LEASE_S)
            elif not node.ended and not _wants_next(node.report, run.generation):
                holders.add(member.process)
        return holders

    def _joiners(self, run: _Run) -> list[_Node]:
        """Nodes that want to be in the next generation, in the order in which they came."""
        members = set() if run.generation is None else {node.process for node in run.generation.nodes}
        return [
            node
            for process, node in run.nodes.items()
            if node.report.state == "joining"
            and (process not in members or _wants_next(node.report, run.generation))
        ]

    def _forget_silent(self, run: _Run, now: float) -> None:
        for process, node in list(run.nodes.items()):
            if node.ended:
                continue
            if now - node.last_seen < LEASE_S:
                run.due(node.last_seen + LEASE_S)
                continue
            logger.warning(
                "run %s: node %s (%s) is gone: silent for %.1f s",
                *(node.report.run, node.report.node.host, process[:8], now - node.last_seen),
            )
            del run.nodes[process]
            self._peers.pop(node.peer, None)

    def _excuse(self, away_s: float, now: float) -> None:
        """This side stood still itself: what it did not hear meanwhile is no silence."""
        for run in self._runs.values():
            run.learned_at = min(now, run.learned_at + away_s)
            for node in run.nodes.values():
                node.last_seen = min(now, node.last_seen + away_s)

    def _objection(self, run: _Run | None, message: NodeReport) -> str | None:
        """Why a node has no part in a run, or None."""
        if message.least > message.most:
            return f"it wants at least {message.least} and at most {message.most} nodes"
        if run is None:
            full = len(self._runs) >= MAX_RUNS
            return f"the coordinator has {MAX_RUNS} runs, and takes no more" if full else None
        if message.node.process not in run.nodes and len(run.nodes) >= MAX_NODES:
            return f"run {message.run} has {MAX_NODES} nodes, and takes no more"
        if not _same_job(run, message) and (run.closed or _lives(run)):
            return (
                f"run {message.run} is of another job: {_describe(run.first)}; this node has "
                f"{_describe(message)}. Give each job a --run-id of its own"
            )
        return None


def _lives(run: _Run) -> bool:
    """Whether a node is in it that has not ended; a silent one is, until a decision has forgotten it."""
    return any(not node.ended for node in run.nodes.values())


def _table(reports: Iterable[NodeReport]) -> tuple[dict[str, bytes], dict[str, int]]:
    """What nodes wrote: their values, and the sums of their counts; nothing of one that writes too much."""
    values: dict[str, bytes] = {}
    counts: dict[str, int] = {}
    room_bytes = MAX_TABLE_BYTES
    for report in reports:
        size = sum(len(key) + len(value) + 8 for key, value in report.values.items())
        size += sum(len(key) + 16 for key in report.counts)
        if size > room_bytes:
            logger.warning("run %s: %s writes %d bytes to the table", report.run, report.node.process, size)
            continue
        room_bytes -= size
        values |= report.values
        for key, count in report.counts.items():
            counts[key] = counts.get(key, 0) + count
    return values, counts


def _same_job(run: _Run, message: NodeReport) -> bool:
    first = run.first
    return (first.job, first.least, first.most) == (message.job, message.least, message.most)


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith("127.")


def _describe(report: NodeReport) -> str:
    job = report.job if len(report.job) <= MAX_SHOWN else f"{report.job[:MAX_SHOWN]}..."
    return f"{job!r} on {report.least}:{report.most} nodes"


def _is_newer(generation: Generation, run: _Run) -> bool:
    """Whether a generation that a node tells of takes the place of the known one.

    Of two with the same number, the one that was there before this coordinator stays.
    """
    known = run.generation
    if known is None or generation.number != known.number:
        return known is None or generation.number > known.number
    return run.ours and generation.token != known.token


def _is_in(report: NodeReport, generation: Generation | None) -> bool:
    return generation is not None and generation.same(report.generation)


def _wants_next(report: NodeReport, generation: Generation | None) -> bool:
    """Whether a node was in this generation and wants another; one that was not in it does not know of it."""
    return report.state == "joining" and _is_in(report, generation)


def _answer(view: RunView, report: NodeReport) -> RunView:
    """The view for one node. The table is for those in the generation only."""
    inside = _is_in(report, view.generation)
    return RunView(
        run=view.run,
        seq=report.seq,
        generation=view.generation,
        gone=view.gone,
        whole=view.whole,
        waiting=view.waiting,
        closed=view.closed,
        values=view.values if inside else {},
        counts=view.counts if inside else {},
    )
