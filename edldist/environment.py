"""What a job tells a student script through environment variables, read in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from edldist.agreement import AgreementBounds
from edldist.bounds import (
    LONGEST_JOB_NAME,
    LONGEST_TTL_S,
    LONGEST_WAIT_S,
    MOST,
    MOST_DEGRADATIONS,
    MOST_PRIORITY,
    MOST_WEIGHT,
)
from edldist.errors import ConfigError

__all__ = ["DegradeEntry", "JobEnvironment", "LabelMaker", "StoreEnvironment", "whole_number"]

_MOST_TEACHERS_BYTES = 1 << 20


class LabelMaker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job says of a teacher whose labels are to be in its store.

    Attributes:
        model: ``module:factory``; empty where a worker calls it by another name.
        codec: as it is written.
        version: what its user calls it, or empty.
        settings: what else the job says of how it labels (``Recipe``).
    """

    model: str = ""
    codec: str = ""
    version: str = ""
    settings: str = ""


def label_makers(environ: Mapping[str, str]) -> dict[str, LabelMaker]:
    """What the job says of its teachers, by name; nothing outside a job.

    Raises:
        ConfigError: the variable holds something else.
    """
    text = environ.get("EDLDIST_STORE_TEACHERS", "") or "{}"
    try:
        return msgspec.json.decode(text[:_MOST_TEACHERS_BYTES], type=dict[str, LabelMaker])
    except msgspec.DecodeError as exc:
        raise ConfigError(
            f"EDLDIST_STORE_TEACHERS={text[:100]!r}: {exc}; it is JSON, as in "
            '{"teacher": {"model": "my:teacher", "codec": "topk:64"}}'
        ) from exc


@dataclass(frozen=True, slots=True)
class DegradeEntry:
    """What a job allows where its fleet is overloaded: one of both.

    Attributes:
        teacher: another group that labels instead.
        codec: a smaller one in which the group before in the list sends its labels.
    """

    teacher: str = ""
    codec: str = ""

    @classmethod
    def read(cls, text: str) -> DegradeEntry:
        """As it is written in ``EDLDIST_DEGRADE``: ``small``, or ``codec=topk:16``."""
        name, is_codec, codec = text.strip().partition("=")
        return cls(codec=codec.strip()) if is_codec and name.strip() == "codec" else cls(teacher=text.strip())

    def __str__(self) -> str:
        return f"codec={self.codec}" if self.codec else self.teacher


@dataclass(frozen=True, slots=True)
class StoreEnvironment:
    """The ``EDLDIST_STORE...`` variables: where labels are kept (docs/store.md).

    Attributes:
        path: a folder, or a URL.
        memory_mib, disk_mib: bounds, in MiB, or None for the store's own.
        preprocessing: what was done to the inputs, in any words.
        data: which data set ids of samples belong to, in any words.
        read_only: nothing is kept there.
        only: no teacher is there: all labels are.
        teachers: who made the labels, by teacher group.
    """

    path: str
    memory_mib: int | None = None
    disk_mib: int | None = None
    preprocessing: str = ""
    data: str = ""
    read_only: bool = False
    only: bool = False
    teachers: Mapping[str, LabelMaker] = field(default_factory=dict)

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> StoreEnvironment | None:
        """Read the variables; None where no store is named.

        Raises:
            ConfigError: a value that cannot be used, with the variable's name.
        """
        path = environ.get("EDLDIST_STORE", "")
        if not path:
            return None
        return cls(
            path,
            whole_number(environ, "EDLDIST_STORE_MEMORY_MIB", least=1),
            whole_number(environ, "EDLDIST_STORE_DISK_MIB", least=1),
            environ.get("EDLDIST_STORE_PREPROCESSING", ""),
            environ.get("EDLDIST_STORE_DATA", ""),
            _flag(environ, "EDLDIST_STORE_READ_ONLY"),
            _flag(environ, "EDLDIST_STORE_ONLY"),
            label_makers(environ),
        )


@dataclass(frozen=True, slots=True)
class JobEnvironment:
    """The ``EDLDIST_...`` variables of a student script; see docs/architecture.md.

    Attributes:
        coordinator: ``tcp://host:port`` or ``file:PATH`` (``address_file``), or None outside a job.
        output: the job's folder, or None.
        job: the job's name, or None.
        weight: the job's part of workers that it shares with others, or None.
        priority: the job's, among those that share workers.
        degrade: what may label instead of the teacher that it asks, where the fleet is overloaded.
        low_watermark, high_watermark: bounds on batches that are read ahead or labelled, or None.
        advertise: address by which teachers reach this host, or None to find it out.
        deterministic: fixed cuts, one task a forward pass.
        task_size: samples per fixed cut, or None.
        on_poison: ``raise`` or ``skip``.
        connect_timeout_s: how long to wait for a coordinator.
        heartbeat_ttl_s: a teacher worker silent for longer is written off.
        checkpoint_keep: how many checkpoints to keep, or None.
        checkpoint_every_steps: how many steps lie between two checkpoints, or None.
        agreement: how far apart workers may be (``AgreementBounds``); None: nobody compares them.
        extend: go on from a checkpoint though its labels came from another teacher.
        store: where labels are kept, or None.
        label_makers: what the job says of its teachers, by name, for whatever store a script gives.
    """

    coordinator: str | None
    output: str | None
    job: str | None
    weight: int | None
    priority: int
    degrade: tuple[DegradeEntry, ...]
    advertise: str | None
    deterministic: bool
    task_size: int | None
    on_poison: str
    connect_timeout_s: float
    heartbeat_ttl_s: float
    checkpoint_keep: int | None
    checkpoint_every_steps: int | None
    agreement: AgreementBounds | None
    extend: bool
    store: StoreEnvironment | None = None
    label_makers: Mapping[str, LabelMaker] = field(default_factory=dict)
    low_watermark: int | None = None
    high_watermark: int | None = None

    def watermarks_as(self, low: int | None, high: int | None) -> tuple[int, int]:
        """What a ``DistillLoader`` was given for its watermarks, or else the job was; by default 2 and 8.

        A job that names the high one alone means a quarter of it by the low one.
        """
        if high is None and self.high_watermark is not None:
            its_low = self.high_watermark // 4 if self.low_watermark is None else self.low_watermark
            return its_low if low is None else low, self.high_watermark
        low = self.low_watermark if low is None else low
        return 2 if low is None else low, 8 if high is None else high

    def poison_as(self, given: str | None) -> str:
        """What a ``DistillLoader`` was given for ``on_poison``, or else the job was.

        Raises:
            ConfigError: it is none.
        """
        poison = given or self.on_poison
        if poison not in ("raise", "skip"):
            raise ConfigError(f"on_poison={poison!r}: use 'raise' or 'skip'")
        return poison

    def agreement_as(self, given: Mapping[str, float] | str | None) -> AgreementBounds | None:
        """What a ``DistillLoader`` was given for ``agreement``, or else the job was.

        Raises:
            ConfigError: it cannot be used.
        """
        return self.agreement if given is None else AgreementBounds.of(given, "agreement")

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> JobEnvironment:
        """Read the variables.

        Raises:
            ConfigError: a value that cannot be used, with the variable's name.
        """
        return cls(
            coordinator=environ.get("EDLDIST_COORDINATOR") or None,
            output=environ.get("EDLDIST_OUTPUT") or None,
            job=_job(environ),
            weight=whole_number(environ, "EDLDIST_WEIGHT", least=1, most=MOST_WEIGHT),
            priority=_priority(environ),
            degrade=_degrade(environ),
            advertise=environ.get("EDLDIST_ADVERTISE") or None,
            deterministic=_flag(environ, "EDLDIST_DETERMINISTIC"),
            task_size=whole_number(environ, "EDLDIST_TASK_SIZE", least=1),
            on_poison=_choice(environ, "EDLDIST_ON_POISON", ("raise", "skip")),
            connect_timeout_s=_seconds(environ, "EDLDIST_CONNECT_TIMEOUT_S", 300.0, LONGEST_WAIT_S),
            heartbeat_ttl_s=_seconds(environ, "EDLDIST_HEARTBEAT_TTL_S", 3.0, LONGEST_TTL_S),
            checkpoint_keep=whole_number(environ, "EDLDIST_CHECKPOINT_KEEP", least=1),
            checkpoint_every_steps=whole_number(environ, "EDLDIST_CHECKPOINT_EVERY_STEPS", least=1),
            agreement=AgreementBounds.of(environ.get("EDLDIST_AGREEMENT", ""), "EDLDIST_AGREEMENT"),
            extend=_flag(environ, "EDLDIST_EXTEND"),
            store=StoreEnvironment.read(environ),
            label_makers=label_makers(environ),
            low_watermark=whole_number(environ, "EDLDIST_LOW_WATERMARK", least=0),
            high_watermark=whole_number(environ, "EDLDIST_HIGH_WATERMARK", least=1),
        )


def _job(environ: Mapping[str, str]) -> str | None:
    name = environ.get("EDLDIST_JOB", "")
    if len(name) > LONGEST_JOB_NAME:  # every message of a member carries it
        raise ConfigError(
            f"EDLDIST_JOB={name[:20]}...: a name of {len(name)} characters; {LONGEST_JOB_NAME} are allowed"
        )
    return name or None


def _priority(environ: Mapping[str, str]) -> int:
    return whole_number(environ, "EDLDIST_PRIORITY", least=-MOST_PRIORITY, most=MOST_PRIORITY) or 0


def _degrade(environ: Mapping[str, str]) -> tuple[DegradeEntry, ...]:
    text = environ.get("EDLDIST_DEGRADE", "")
    entries = tuple(DegradeEntry.read(entry) for entry in text.split(",")) if text.strip() else ()
    names = [entry.teacher for entry in entries if not entry.codec]
    if (
        not all(names)
        or "=" in "".join(names)
        or len({*names}) < len(names)
        or len(entries) > MOST_DEGRADATIONS
    ):
        raise ConfigError(
            f"EDLDIST_DEGRADE={text!r}: needs up to {MOST_DEGRADATIONS} different names of teachers, or "
            "smaller codecs, parted by commas, as in codec=topk:16,small"
        )
    return entries


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").strip().lower()
    if text in ("", "0", "false", "no"):
        return False
    if text in ("1", "true", "yes"):
        return True
    raise ConfigError(f"{name}={text!r}: use 1 or 0")


def _choice(environ: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = environ.get(name, "").strip() or allowed[0]
    if text not in allowed:
        raise ConfigError(f"{name}={text!r}: use {' or '.join(allowed)}")
    return text


def whole_number(environ: Mapping[str, str], name: str, *, least: int, most: int = MOST) -> int | None:
    """The number that a variable holds; None if it is not set, or empty.

    Raises:
        ConfigError: it holds something else, less than ``least``, or more than ``most``.
    """
    text = environ.get(name, "").strip()
    if not text:
        return None
    digits = text.removeprefix("-") if least < 0 else text
    if not (digits.isascii() and digits.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise ConfigError(f"{name}={text!r}: needs a whole number from {least} to {most}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = environ.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = -1.0
    if not 0 < value <= most:
        raise ConfigError(f"{name}={text!r}: needs a number of seconds above 0, and at most {most:g}")
    return value
