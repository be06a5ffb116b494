"""Student nodes that meet at a coordinator: no socket, and time that goes when a test says so."""

from __future__ import annotations

from typing import Any

import msgspec

from edldist.coordinator.rendezvous import (
    FIRST_CALL_S,
    SETTLE_S,
    Rendezvous,
)
from edldist.wire.messages import (
    Generation,
    GroupNode,
    NodeReport,
    RunView,
)

STEP_S = 0.05


class Agent:
    """What a node's agent does: it reports every second and whenever something changed."""

    def __init__(self, town: Town, name: str, **fields: Any) -> None:
        self.town, self.name = town, name
        node = GroupNode(process=name, host=f"10.0.0.{len(town.agents) + 1}", port=1000, ranks=1)
        base: dict[str, Any] = {"run": "r", "job": "train.py", "node": node, "least": 1, "most": 4}
        base["most"] = max(4, fields.get("least", 1))
        self.report = NodeReport(**base | {"state": "joining", "seq": 1} | fields)
        self.view: RunView | None = None
        self.views: list[RunView] = []
        self.alive = True
        self.next_at = town.now
        town.agents[name] = self

    def tell(self, **changes: Any) -> None:
        self.report = msgspec.structs.replace(self.report, seq=self.report.seq + 1, **changes)
        self.next_at = self.town.now

    def rejoin(self) -> None:
        self.tell(state="joining", values={}, counts={})

    def hear(self, view: RunView) -> None:
        self.view = view
        self.views.append(view)
        generation = view.generation
        last = self.report.generation
        if self.report.state != "joining" or view.seq < self.report.seq or generation is None:
            return
        if last is not None and generation.number <= last.number:
            return
        if self.name in [node.process for node in generation.nodes]:
            self.tell(state="member", generation=generation)

    @property
    def rank(self) -> int:
        generation = self.generation
        return [node.process for node in generation.nodes].index(self.name)

    @property
    def generation(self) -> Generation:
        assert self.report.state == "member" and self.report.generation is not None
        return self.report.generation

    @property
    def disturbed(self) -> bool:
        """Whether its agent would restart its ranks."""
        view = self.view
        if self.report.state != "member" or view is None or view.seq < self.report.seq:
            return False
        return not self.generation.same(view.generation) or view.waiting > 0


class Town:
    """A coordinator, its agents, and the time between them."""

    def __init__(self, settled: bool = True) -> None:
        self.now = 100.0
        self.agents: dict[str, Agent] = {}
        self.lives = 0
        self.restart(settled)

    def restart(self, settled: bool = False) -> None:
        self.lives += 1
        self.there = True
        self.core = Rendezvous(f"life-{self.lives}", self.now - (SETTLE_S if settled else 0))

    def join(self, *names: str, **fields: Any) -> list[Agent]:
        return [Agent(self, name, **fields) for name in names]

    def turn(self) -> None:
        for agent in self.agents.values():
            if agent.alive and self.there and self.now >= agent.next_at:
                agent.next_at = self.now + 1.0
                self.core.report(agent.name.encode(), agent.report, self.now)
        if not self.there:
            return
        for send in self.core.decide(self.now):
            agent = self.agents[send.peer.decode()]
            assert isinstance(send.message, RunView)
            if agent.alive:
                agent.hear(msgspec.msgpack.decode(msgspec.msgpack.encode(send.message), type=RunView))
            else:
                self.core.unreachable(send.peer, self.now)

    def run(self, seconds: float, step_s: float = STEP_S) -> None:
        end = self.now + seconds
        while self.now < end:
            self.turn()
            self.now += step_s
        self.turn()

    def members(self) -> list[str]:
        """The nodes that are in the newest generation, by rank."""
        inside = [a for a in self.agents.values() if a.alive and a.report.state == "member"]
        newest = max(a.generation.number for a in inside)
        return [
            a.name for a in sorted((a for a in inside if a.generation.number == newest), key=lambda a: a.rank)
        ]


def formed(*names: str, **fields: Any) -> tuple[Town, list[Agent]]:
    town = Town()
    agents = town.join(*names, **fields)
    town.run(FIRST_CALL_S + 0.2)
    assert town.members() == list(names)
    return town, agents
