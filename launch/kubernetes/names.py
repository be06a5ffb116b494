"""What a job's objects are called. Pure.

Kubernetes takes lower-case letters, digits and hyphens, and not many of them. A name that fits stays as it
is; any other becomes one that fits, with a digest of what it was at its end, so that no two names become the
same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["CLAIM", "Names", "safe_name"]

MOST_JOB, MOST_ROLE = 33, 20  # with a hyphen and a digest between and behind them: 63
CLAIM = "/output"
"""Where pods see the claim for output."""
_DIGEST = 8
_PLAIN = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_DIGESTED = re.compile(rf"(.*-)?[0-9a-f]{{{_DIGEST}}}")
_FIXED = (
    "coordinator",
    "student",
    "prepare",
    "end",
    "output",
    "secret",
    "keys",
    "file",
    "job",
    "keda",
    "prometheus",
)


def safe_name(name: str, most: int) -> str:
    """A name of at most ``most`` letters, digits and hyphens, the first a letter; another for every name."""
    if _PLAIN.fullmatch(name) and len(name) <= most and not _DIGESTED.fullmatch(name):
        return name
    return f"{_trimmed(name, most - _DIGEST - 1)}-{_digest(name)}"


def _trimmed(name: str, most: int) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (words if words[:1].isalpha() else f"x{words}")[:most].rstrip("-")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]


@dataclass(frozen=True)
class Names:
    """The names of one job's objects.

    Attributes:
        job: its name in the job file.
    """

    job: str

    @property
    def label(self) -> str:
        """The value of the label ``edldist/job``, by which everything of the job is found."""
        return safe_name(self.job, MOST_JOB)

    def fixed(self, what: str) -> str:
        """Of what a job has one of: ``coordinator``, ``student``, ``output``, ..."""
        assert what in _FIXED, what
        return f"{self.label}-{what}"

    def teacher(self, group: str) -> str:
        """Of the objects of a teacher group.

        The last word of every name tells what it is: one word for each group that is one word, and is none of
        those for fixed objects, and a digest for any other. So no two objects of two jobs share a name.
        """
        if (
            re.fullmatch(r"[a-z][a-z0-9]*", group)
            and group not in _FIXED
            and safe_name(group, MOST_ROLE) == group
        ):
            return f"{self.label}-{group}"
        return f"{self.label}-{_trimmed(group, MOST_ROLE)}-{_digest(group)}"

    @property
    def output(self) -> str:
        """The job's folder, as pods see it: one of its own, since jobs may share a claim."""
        return f"{CLAIM}/{self.label}"

    def owner(self, kind: str, role: str) -> str:
        """Of the Deployment or Job that makes a role's pods."""
        return self.teacher(role) if kind == "teacher" else self.fixed(kind)

    def role(self, role: str) -> str:
        """The value of the label ``edldist/role``."""
        return safe_name(role, 63)

    def of_base(self, group: str | None = None) -> Mapping[str, str]:
        """From names in the manifests to the job's own; with a teacher group, to that of its objects."""
        names = {f"edldist-{what}": self.fixed(what) for what in _FIXED}
        names[f"{CLAIM}/edldist"] = self.output
        return names if group is None else names | {"edldist-teacher": self.teacher(group)}
