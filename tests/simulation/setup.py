"""What a seed says about a job before anything happens."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.simulation.sequences import LONGEST

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """Sizes and bounds of one simulated job: small ones, at which what is rare elsewhere is common."""

    teachers: tuple[str, ...]
    workers: int  # of each teacher, at the start
    nodes: int
    samples: int  # of an epoch
    global_batch: int
    worker_batch: int
    low_watermark: int
    high_watermark: int
    max_bytes: int
    max_frame_bytes: int
    task_size: int | None
    fixed: bool
    skip_poison: bool
    first_deadline_s: float
    min_deadline_s: float
    hedge_after_s: float
    ttl_s: float
    connect_timeout_s: float
    max_students_per_worker: int
    step_s: float
    pass_s: tuple[float, float]
    checkpoint_every: int
    faults: int
    fault_every_s: float
    route: bool  # whether each sample goes to one of the teachers, by its number
    versions: int | None  # labels of how many versions are taken at a time
    skip_after_s: float | None  # batches go on without a teacher that has had no worker for so long
    sequences: bool  # samples have tokens, of which some are asked
    coordinator_moves: bool  # each life of it listens somewhere else, and a file says where
    compare_every_s: float | None = None  # workers are compared so often; None: never
    staleness: int | None = (
        None  # the loop makes its batches and asks for labels, so many ahead; None: it reads
    )
    several_jobs: bool = False  # to workers and coordinator each rank is a job with a weight and a priority
    shed_every_s: float | None = None  # ranks are told to ease off, or to read nothing, so often
    store: bool = False  # all ranks share a store of labels, which outlives them
    smaller: bool = False  # labels of batches may come in another codec, of the same values
    job: str = ""  # of several that share the fleet; empty: there is one
    weight: int | None = None
    priority: int = 0
    live: bool = False  # ranks go on in process when their group changes

    @classmethod
    def draw(cls, chance: random.Random) -> Setup:
        """A job of a seed."""
        high = chance.randint(1, 6)
        global_batch = chance.choice((4, 6, 8, 12))
        fixed = chance.random() < 0.25
        fast = chance.choice((0.01, 0.05, 0.1))
        teachers = chance.choice((("big",), ("big", "small"), ("big", "small")))
        several = len(teachers) > 1
        # What was added later: a seed's other sizes, and its faults, stay what they were.
        apart = random.Random()
        apart.setstate(chance.getstate())
        sequences = apart.random() < 0.3
        small_frame = 24 * (2 * LONGEST if sequences else 1)
        compare_every_s = apart.choice((None, None, 0.3, 2.0, 20.0))
        staleness = apart.choice((0, 1, 2)) if apart.random() < 0.25 else None
        several_jobs, shed_every_s = apart.random() < 0.4, apart.choice((None, None, 0.7, 3.0))
        store = apart.random() < 0.4
        smaller = apart.random() < 0.5
        live, live_nodes = apart.random() < 0.3, apart.choice((2, 3))
        most_students = chance.choice((1, 2, 16))
        made = cls(
            teachers=teachers,
            workers=chance.randint(1, 4),
            nodes=chance.choice((1, 1, 2, 3)),
            samples=chance.randint(2 * global_batch, 8 * global_batch),
            global_batch=global_batch,
            worker_batch=chance.choice((1, 2, 4, 8)),
            low_watermark=chance.randint(0, high - 1),
            high_watermark=high,
            max_bytes=chance.choice((200, 1000, 1 << 30)),
            max_frame_bytes=small_frame if not fixed and chance.random() < 0.3 else 1 << 30,
            task_size=chance.choice((None, None, 1, 3)),
            fixed=fixed,
            skip_poison=chance.random() < 0.5,
            first_deadline_s=chance.choice((2.0, 20.0)),
            min_deadline_s=chance.choice((0.5, 5.0)),
            hedge_after_s=chance.choice((0.1, 0.25, 5.0)),
            ttl_s=chance.choice((0.9, 3.0)),
            connect_timeout_s=300.0,
            # A rank that meets one worker at a time cannot tell which of two is right, and waits.
            max_students_per_worker=most_students if compare_every_s is None else 16,
            step_s=chance.choice((0.02, 0.1, 0.3)),
            pass_s=(fast / 2, fast * 4),
            checkpoint_every=chance.randint(2, 10),
            faults=chance.randint(60, 180),
            fault_every_s=chance.choice((0.03, 0.1, 0.3)),
            route=several and chance.random() < 0.3,
            versions=chance.choice((None, 1, 2)) if not fixed else None,
            skip_after_s=chance.choice((0.1, 0.3, 1.0)) if several and not fixed else None,
            coordinator_moves=chance.random() < 0.25,
            sequences=sequences,
            compare_every_s=compare_every_s,
            staleness=staleness,
            several_jobs=several_jobs,
            shed_every_s=shed_every_s,
            store=store and staleness is None,
            smaller=smaller and not (fixed or several),
            live=live,
        )
        if live:
            made = replace(made, nodes=live_nodes)
        # Labels of a worker that is put aside later stay in a store: there nobody is compared.
        return replace(made, store=False) if compare_every_s is not None else made

    @classmethod
    def draw_shared(cls, chance: random.Random) -> list[Setup]:
        """Jobs that share a fleet, each of which could take all of it; what is not theirs is alike."""
        fleet = cls(
            teachers=("big",),
            workers=chance.randint(2, 3),
            nodes=1,
            samples=1,
            global_batch=1,
            worker_batch=chance.choice((2, 4)),
            low_watermark=1,
            high_watermark=2,
            max_bytes=1 << 30,
            max_frame_bytes=1 << 30,
            task_size=None,
            fixed=False,
            skip_poison=True,
            first_deadline_s=chance.choice((2.0, 20.0)),
            min_deadline_s=chance.choice((0.5, 5.0)),
            hedge_after_s=chance.choice((0.25, 5.0)),
            ttl_s=chance.choice((0.9, 3.0)),
            connect_timeout_s=300.0,
            max_students_per_worker=chance.choice((2, 4, 16)),
            step_s=chance.choice((0.01, 0.02)),
            pass_s=(0.15, 0.25),
            checkpoint_every=chance.randint(5, 20),
            faults=chance.randint(30, 90),
            fault_every_s=chance.choice((0.1, 0.3)),
            route=False,
            versions=None,
            skip_after_s=None,
            sequences=False,
            coordinator_moves=chance.random() < 0.25,
        )
        jobs = []
        for name in "abcd"[: chance.randint(2, 4)]:
            batch, low = chance.choice((12, 16)), chance.randint(4, 5)
            jobs.append(
                replace(
                    fleet,
                    job=name,
                    nodes=chance.choice((1, 1, 2)),
                    samples=chance.randint(4, 10) * batch,
                    global_batch=batch,
                    low_watermark=low,
                    high_watermark=2 * low + chance.randint(0, 2),
                    weight=chance.randint(1, 4),
                    priority=chance.choice((0, 0, 0, 1)),
                    smaller=chance.random() < 0.5,
                )
            )
        return jobs
