"""The keys of a job that is handed to a cluster: made with it, and found again by its folder.

::

    edldist submit --keys DIR     those of DIR, which stay where they are
    edldist submit --insecure     none: the job's link is open, and everything says so
    edldist submit                those of OUT/keys, made there (mode 0600) the first time

Who looks at the job later, or ends it, needs an operator's key: the record of the submission says where the
keys are, so that nobody has to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from edldist.keys.folder import KNOWN, KeyFolder
from edldist.keys.open_link import INSECURE_VARIABLE, KEYS_VARIABLE, is_insecure
from edldist.keys.pair import ROLES
from edldist_launch.contract.submission import Submission

__all__ = ["FOLDER", "LINK", "JobKeys", "link_here", "use_keys_of"]

FOLDER = "keys"
LINK = (KEYS_VARIABLE, INSECURE_VARIABLE)
"""Variables that say how a process's connections are sealed."""


@dataclass(frozen=True)
class JobKeys:
    """Where the keys of one job are.

    Attributes:
        folder: of all roles; None where the job has none.
        own: whether they are made with the job, in its output folder.
    """

    folder: Path | None
    own: bool = False

    @classmethod
    def of(cls, output: Path, environment: Mapping[str, str] = os.environ) -> JobKeys:
        """As whoever submits a job says.

        Raises:
            ConfigError: ``EDLDIST_INSECURE`` says neither yes nor no.
        """
        if given := environment.get(KEYS_VARIABLE):
            return cls(Path(given).absolute())
        return cls(None) if is_insecure(environment) else cls(output.absolute() / FOLDER, own=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the job is told: a folder, and never a key."""
        return {INSECURE_VARIABLE: "1"} if self.folder is None else {KEYS_VARIABLE: str(self.folder)}

    def ready(self) -> None:
        """Make those that are made with the job, and see that every role has a key that counts.

        Raises:
            ConfigError: one is missing, damaged, readable for others or retired; or they cannot be written.
        """
        if self.folder is None:
            return
        keys = KeyFolder(self.folder)
        if self.own and not (self.folder / KNOWN).exists():
            keys.make()
        for role in ROLES:
            keys.ring(role)

    def contents(self) -> dict[str, str]:
        """What the files of all roles hold, by their names; of a job without keys there are none.

        Raises:
            ConfigError: as ``ready``.
        """
        return {} if self.folder is None else KeyFolder(self.folder).contents(ROLES)


def use_keys_of(submission: Submission, environment: MutableMapping[str, str] = os.environ) -> None:
    """Let this process reach a job with the keys of its record, or without any where it has none.

    What somebody gave by ``--keys`` or ``--insecure`` stays.
    """
    if not link_here(environment):
        environment.update({name: submission.link[name] for name in LINK if name in submission.link})


def link_here(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What this process was told by ``--keys`` or ``--insecure``."""
    return {name: environment[name] for name in LINK if environment.get(name)}
