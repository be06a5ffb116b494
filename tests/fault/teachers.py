"""Teachers that can be made to fail. Each labels a sample with its own id.

Faults are asked for through files in ``$EDLDIST_FAULTS``, so that a test decides the moment and
sees that it came: a model that acts on a request leaves ``<request>.fired`` behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(os.environ.get("EDLDIST_FAULTS", "."))


def fired(name: str) -> None:
    (_FOLDER / f"{name}.fired").touch()


def take(name: str) -> bool:
    """Whether this fault was asked for; only one worker gets to act on each request."""
    try:
        (_FOLDER / name).rename(_FOLDER / f"{name}.fired")
    except FileNotFoundError:
        return False
    (_FOLDER / f"{name}.fired").write_text(f"{os.getpid()}\n")
    return True


def is_sick() -> bool:
    """Whether ``EDLDIST_TEST_SICK`` is set: of workers that serve one model, one may have a broken device."""
    return bool(os.environ.get("EDLDIST_TEST_SICK"))


def _label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
    value = id.to(torch.float64)
    return torch.stack([value, value * 2 + 1], dim=1)


def steady() -> Callable[..., Tensor]:
    """Takes ``EDLDIST_TEST_PASS_S`` seconds for every forward pass."""
    pass_s = float(os.environ.get("EDLDIST_TEST_PASS_S", "0.01"))

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        time.sleep(pass_s)
        return _label(id, x)

    return label


def faulty() -> Callable[..., Tensor]:
    """As ``steady``, and acts on requests: crash, segfault, oom_kill, hang, pause, hold_gil, raise, slow."""
    if is_sick():
        return _sick()
    pass_s = float(os.environ.get("EDLDIST_TEST_PASS_S", "0.01"))
    slow = 1.0

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        nonlocal slow
        if take("crash"):
            os._exit(17)
        if take("segfault"):
            ctypes.string_at(0)
        if take("oom_kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        if take("hang"):
            time.sleep(3600)
        if take("pause"):
            while not (_FOLDER / "pause.over").exists():  # a test hits a worker that computes
                time.sleep(0.005)
        if take("hold_gil"):
            # PyDLL keeps the interpreter lock.
            ctypes.PyDLL(None).sleep(int(os.environ.get("EDLDIST_TEST_GIL_S", "8")))
        if take("raise"):
            raise RuntimeError("raised on purpose")
        if take("slow"):
            slow = 20.0
        time.sleep(pass_s * slow)
        return _label(id, x)

    return label


def killer() -> Callable[..., Tensor]:
    """Dies on sample 777: a task that kills every worker that touches it."""

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        if (id == 777).any():
            with (_FOLDER / "killed").open("a") as book:
                book.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.005)
        return _label(id, x)

    return label


def poison() -> Callable[..., Tensor]:
    """Raises on sample 777."""

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        if (id == 777).any():
            fired("poison")
            raise ValueError("sample 777 is poison on purpose")
        return _label(id, x)

    return label


def cursed() -> Callable[..., Tensor]:
    """On sample 777: raises, or kills its worker if ``deadly`` was asked for. Books its deaths."""
    if is_sick():
        return _sick()
    deadly, pass_s = killer(), 0.005

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        if (_FOLDER / "deadly").exists():
            return deadly(id, x)
        time.sleep(pass_s)
        return poison()(id, x)

    return label


def _sick() -> Callable[..., Tensor]:
    """A model on a device that labels nothing."""

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        fired("sick")
        raise RuntimeError("this device is sick on purpose")

    return label


def heavy() -> Callable[..., dict[str, Tensor]]:
    """As ``faulty``, with labels as large as the samples' ballast."""
    inner = faulty()

    def label(id: Tensor, x: Tensor, ballast: Tensor) -> dict[str, Tensor]:  # noqa: A002
        return {"logits": inner(id, x), "ballast": ballast + 1}

    return label


def minded() -> Callable[..., Tensor]:
    """As ``steady``; ``EDLDIST_TEST_MIND`` makes it ``other``, ``nan``, ``constant`` or ``wavering``.

    On request it comes to ``drift``: from then on it labels as ``other`` does.
    """
    mind = os.environ.get("EDLDIST_TEST_MIND", "")
    right = steady()

    def label(id: Tensor, x: Tensor) -> Tensor:  # noqa: A002
        nonlocal mind
        labels = right(id, x)
        if not mind and take("drift"):
            mind = "other"
        if mind == "other":
            return labels.flip(-1)
        if mind == "nan":
            return labels * torch.nan
        if mind == "constant":
            return torch.ones_like(labels)
        return labels * torch.rand_like(labels) if mind == "wavering" else labels

    return label
