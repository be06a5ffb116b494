"""Optimizers for students that torch has not."""

from edldist.optim.clippy import Clippy

__all__ = ["Clippy"]
