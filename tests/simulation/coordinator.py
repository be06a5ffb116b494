"""The coordinator's process: the real server, called by the schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.scaling.scaling import Bounds
from edldist.coordinator.server import Coordinator
from tests.simulation.process import Actor, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["CoordinatorProcess", "coordinator_place"]

COORDINATOR = "tcp://coordinator:7070"
ADDRESS_FILE = "/job/coordinator.json"


class CoordinatorProcess(Process):
    """One life of the coordinator; the next one binds the same address, or another one that a file says."""

    def __init__(self, world: World, life: int) -> None:
        super().__init__(world, "coordinator")
        moving = world.setup.coordinator_moves
        self.server = Coordinator(
            CoordinatorOptions(
                bind="tcp://coordinator:0" if moving else COORDINATOR,
                http=None,
                heartbeat_interval_s=world.setup.ttl_s / 3,
                heartbeat_ttl_s=world.setup.ttl_s,
                max_students_per_worker=world.setup.max_students_per_worker,
                scale={teacher: Bounds.parse("0:4") for teacher in world.setup.teachers},
            ),
            self.transport,
            self.clock,
            incarnation=f"life-{life}",
        )
        self.reader = Actor(self, "coordinator", self.server.turn, reads=True)
        self.server.open()
        world.coordinator_address = self.server.address
        if moving:
            world.network.files[ADDRESS_FILE] = self.server.address
        self.ring()

    def failed(self, actor: str, error: Exception) -> None:
        self.world.violate(f"the coordinator raised {error!r}", error)


def coordinator_place(world: World) -> str:
    """What members are told of it."""
    return f"file:{ADDRESS_FILE}" if world.setup.coordinator_moves else COORDINATOR
