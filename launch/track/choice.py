"""Which trackers a run has: those that its job file names, or else whose own variables are set. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["KNOWN", "Chosen", "choose"]

KNOWN = ("tensorboard", "wandb", "mlflow")
_BEGUN_BY = {
    "tensorboard": "TENSORBOARD_LOGGING_DIR",
    "wandb": "WANDB_PROJECT",
    "mlflow": "MLFLOW_TRACKING_URI",
}
"""A variable that says where figures go begins its tracker. A key, which many shells have, begins none."""
_NO = ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Chosen:
    """A tracker, and why: in words, for the person who runs the job."""

    name: str
    why: str


def choose(named: Sequence[str] | None, environment: Mapping[str, str]) -> list[Chosen]:
    """The trackers of a run.

    Args:
        named: by the job file; None where it leaves that to the variables, an empty list for none.
        environment: the variables of this process.
    """
    off = _switched_off(environment)
    if named is not None:
        return [Chosen(name, "the job file names it") for name in dict.fromkeys(named) if name not in off]
    begun = [(name, variable) for name, variable in _BEGUN_BY.items() if environment.get(variable)]
    return [Chosen(name, f"{variable} is set") for name, variable in begun if name not in off]


def _switched_off(environment: Mapping[str, str]) -> set[str]:
    """Whom their own variables forbid to do anything, chosen or not."""
    disabled = environment.get("WANDB_DISABLED", "").lower() not in _NO
    return {"wandb"} if disabled or environment.get("WANDB_MODE") == "disabled" else set()
