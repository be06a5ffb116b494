"""A sweep: jobs and measurements over several seeds, each done once, and a verdict at the end.

A sweep script has a constant ``GATE``, the gate in words, and a ``main`` in this shape::

    def main() -> int:
        args = options(__doc__, HERE).parse_args()
        sweep = Sweep(HERE, args.output)
        auc = {seed: sweep.job(f"routed-{seed}", student=["--seed", seed])["auc"] for seed in args.seeds}
        plain = {seed: sweep.measure(f"plain-{seed}", {"seed": seed}, partial(plainly, seed))["auc"] ...}
        figures = {"auc": Figure.of("auc", auc), "gain": Figure.of("gain", differences(auc, plain))}
        print(table(["", "AUC"], [["routed", f"{figures['auc']:.4f}"]]))
        return conclude(HERE.name, GATE, figures, {"gain >= 0.02": figures["gain"].mean >= 0.02})


    if __name__ == "__main__":
        sys.exit(main())
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from edldist.config import load_job
from examples.common.errors import SweepError
from examples.common.figures import Figure
from examples.common.job import run_job
from examples.common.kept import fingerprint, sources_of, write_json
from examples.common.seeds import Different, seed

__all__ = ["Metrics", "Sweep", "conclude", "options"]


def options(
    description: str | None, example: Path, seeds: Sequence[int] = (0, 1, 2)
) -> argparse.ArgumentParser:
    """The command line of every sweep: ``--seeds`` and ``--output``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seeds", type=seed, nargs="+", default=list(seeds), metavar="SEED", action=Different
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(f"out/{example.name}-sweep"),
        help="what is done lies here and is not done again until its settings or the example's files change",
    )
    return parser


class Metrics:
    """Figures that a job or a measurement left. To ask for one that is missing or not finite is an error.

    Attributes:
        origin: where they come from: a job's folder.
    """

    def __init__(self, found: Mapping[str, Any], origin: Path) -> None:
        self._found = dict(found)
        self.origin = origin

    def __getitem__(self, name: str) -> float:
        """A finite number.

        Raises:
            SweepError: there is none of that name, or it is something else.
        """
        if name not in self._found:
            there = ", ".join(map(repr, self._found)) or "nothing"
            raise SweepError(f"{self.origin} reports no {name!r}; it reports {there}")
        value = self._found[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise SweepError(f"{self.origin} reports {name}={value!r}, which is not a finite number")
        return float(value)


class Sweep:
    """Runs what a sweep asks for, each once.

    What is done lies in ``output`` as ``NAME-KEY.json``, with the settings, the figures and the seconds that
    it took; a job's folder is ``NAME-KEY`` beside it. The key is a digest of the settings and of the
    example's files: after a change of either it is another one, and what was done before stays unused.
    edldist itself is not in it: after a change there, give another ``--output``.

    Args:
        example: the example's folder, with its ``job.yaml``.
        output: where results are kept.
        sources: the files on which results depend, where that is not all of the example's.
    """

    def __init__(self, example: Path, output: Path, sources: Iterable[Path] | None = None) -> None:
        torch.set_num_threads(1)  # as in the processes of a job: another number rounds otherwise
        self._example = example
        self._output = output
        self._sources = list(sources_of(example) if sources is None else sources)

    def job(
        self,
        name: str,
        settings: Mapping[str, Any] | None = None,
        *,
        job: str = "job.yaml",
        student: Sequence[object] = (),
        prepare: Sequence[object] = (),
    ) -> Metrics:
        """The metrics of a job, run now by ``edldist run`` or earlier. An unfinished one is gone on with.

        Args:
            name: of its folder, such as ``routed-0``.
            settings: keys of the job file and their values, as for ``--set``.
            job: the job file's name in the example's folder.
            student: arguments behind those of the job file: of an option given twice the last one counts.
            prepare: the same for the preparation.

        Raises:
            SweepError: the job failed; its folder and logs are named.
        """
        made = self._job_settings(self._example / job, settings or {}, student, prepare)
        folder, _ = self._places(name, made)
        return self.measure(name, made, lambda: run_job(self._example / job, folder, made["set"]))

    def measure(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]
    ) -> Metrics:
        """What ``make`` gives, made now or earlier under the same name and settings.

        Args:
            settings: all that it depends on beside the example's files; whatever JSON can say.
            make: does the work, in this process; gives figures by name.
        """
        folder, path = self._places(name, settings)
        if not path.exists():
            print(f"{self._example.name}: {name} ...", file=sys.stderr, flush=True)
            begun = time.monotonic()
            metrics = dict(make())
            done = {"settings": settings, "metrics": metrics, "seconds": time.monotonic() - begun}
            write_json(path, done)
        return Metrics(json.loads(path.read_text(encoding="utf-8"))["metrics"], folder)

    def _places(self, name: str, settings: Mapping[str, Any]) -> tuple[Path, Path]:
        """A job's folder, and the file that says that it is done."""
        folder = self._output / f"{name}-{fingerprint(settings, self._sources)}"
        return folder, folder.with_name(f"{folder.name}.json")

    def _job_settings(
        self, job: Path, settings: Mapping[str, Any], student: Sequence[object], prepare: Sequence[object]
    ) -> dict[str, Any]:
        config = load_job(job)
        changes = dict(settings)
        if student:
            changes["student.args"] = [*config.student.args, *map(str, student)]
        if prepare:
            if config.prepare is None:
                raise SweepError(f"{job} has no prepare: to give arguments to")
            changes["prepare.args"] = [*config.prepare.args, *map(str, prepare)]
        return {"job": job.name, "set": changes}


def conclude(workload: str, gate: str, figures: Mapping[str, Figure], conditions: Mapping[str, bool]) -> int:
    """Print the verdict, one line of JSON, and which conditions are missed (on standard error).

    Args:
        workload: the example's name.
        gate: in words.
        figures: all that the gate speaks of, and what else is worth publishing.
        conditions: what the gate is made of, in words, and whether each holds.

    Returns:
        The exit code of the sweep: 0, or 1 where the gate is missed.
    """
    if not conditions:
        raise SweepError(f"{workload}: a gate without conditions would never be missed")
    missed = [what for what, holds in conditions.items() if not holds]
    for what in missed:
        print(f"{workload}: the gate is missed: not {what}", file=sys.stderr)
    verdict = {
        "workload": workload,
        "gate": gate,
        "figures": {name: figure.as_json() for name, figure in figures.items()},
        "passed": not missed,
    }
    sys.stdout.flush()
    print(json.dumps(verdict, allow_nan=False, ensure_ascii=False), flush=True)
    return 1 if missed else 0
