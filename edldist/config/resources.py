"""What one process of a role needs of the machine that it is placed on."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from edldist.bounds import MOST
from edldist.config.section import Section, whole

__all__ = ["MEMORY_FORM", "ResourcesConfig", "memory_bytes"]

MEMORY_FORM = "a whole number with MiB, GiB or TiB, as in `16GiB`"
_MEMORY = re.compile(r"^([1-9]\d{0,8})(MiB|GiB|TiB)$")
_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def memory_bytes(text: str) -> int:
    """Bytes of an amount of memory.

    Raises:
        ValueError: it has another form than ``MEMORY_FORM``.
    """
    match = _MEMORY.match(text)
    if match is None:
        raise ValueError(f"`{text}` is no amount of memory: write {MEMORY_FORM}")
    return int(match[1]) * _UNITS[match[2]]


class ResourcesConfig(Section):
    """Asked of whoever places processes (Slurm, Kubernetes); `edldist run` shares its machine by itself.

    A teacher worker takes one device. A student node's are for all of its ranks together.
    """

    cpus: int | None = Field(default=None, ge=1, le=MOST, description=f"{whole(1, MOST)}, or null")
    memory: str | None = Field(
        default=None,
        description=f"{MEMORY_FORM}, or null",
        json_schema_extra={"pattern": _MEMORY.pattern},
    )
    gpus: int = Field(default=0, ge=0, le=1024, description=whole(0, 1024))
    gpu_type: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_.:/-]+$",
        max_length=100,
        description="what the cluster calls the kind of GPU, as in `a100`, or null for any",
    )

    @field_validator("memory")
    @classmethod
    def _an_amount(cls, memory: str | None) -> str | None:
        if memory is not None:
            memory_bytes(memory)
        return memory

    @model_validator(mode="after")
    def _a_kind_of_some(self) -> ResourcesConfig:
        if self.gpu_type is not None and self.gpus == 0:
            raise ValueError(f"gpu_type {self.gpu_type} of no GPUs: give gpus, too")
        return self
