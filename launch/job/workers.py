"""The teacher workers of a job on this machine: their names, and which device each computes on. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.config import JobConfig, TeacherConfig
from edldist.reference import is_engine

__all__ = ["Workers"]


class Workers:
    """Names ``<teacher>-<k>``, each of one worker at a time.

    Workers whose device is ``auto`` are numbered over the whole job: they spread over the accelerators. Those
    in front of an HTTP engine take none.

    Invariant: no two of them have the same number.
    """

    def __init__(self, job: JobConfig) -> None:
        self._teachers = {teacher.name: teacher for teacher in job.served}
        self._workers: dict[str, TeacherConfig] = {}
        for teacher in job.served:
            self.add(teacher.name, teacher.initial_replicas)

    def __getitem__(self, name: str) -> TeacherConfig:
        """What a worker serves, with its device."""
        return self._workers[name]

    def __len__(self) -> int:
        return len(self._workers)

    def of(self, group: str) -> list[str]:
        """The workers of a group, the oldest name first."""
        return [name for name, teacher in self._workers.items() if teacher.name == group]

    @property
    def names(self) -> list[str]:
        return list(self._workers)

    def add(self, group: str, count: int = 1) -> Sequence[str]:
        """Names for so many more workers of a group: the lowest that are free."""
        return [self._add(group) for _ in range(count)]

    def remove(self, name: str) -> None:
        """A worker has left: its name and its device are free."""
        del self._workers[name]

    def _add(self, group: str) -> str:
        teacher, number = self._teachers[group], 0
        while (name := f"{group}-{number}") in self._workers:
            number += 1
        if is_engine(teacher.model):
            teacher = teacher.model_copy(update={"device": "cpu"})  # the engine has the accelerators
        elif teacher.device == "auto":
            taken, device = {each.device for each in self._workers.values()}, 0
            while f"auto:{device}" in taken:
                device += 1
            teacher = teacher.model_copy(update={"device": f"auto:{device}"})
        self._workers[name] = teacher
        return name
