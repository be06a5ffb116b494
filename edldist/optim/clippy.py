"""Clippy: an Adagrad whose steps change no weight by more than a share of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from edldist.errors import ConfigError, InputError

__all__ = ["Clippy"]


class Clippy(Optimizer):
    """Adagrad; each tensor's step is shortened until it changes no weight by more than a share of it.

    For each tensor ``w`` with its gradient ``g``, squares and roots by element::

        G <- G + g²
        r  = g / (sqrt(G) + eps)
        s  = min(1, min_i (lambda_rel |w_i| + lambda_abs) / (lr |r_i|))
        w <- w - lr s r

    which is algorithm 1 of Tang et al., "Improving Training Stability for Multitask Ranking Models in
    Recommender Systems" (KDD 2023, arXiv 2302.09178), with the ``eps`` of ``torch.optim.Adagrad``: where s is
    1, the steps are those of that, bit by bit. s is one number for a tensor, so its step keeps its direction.
    Clipping the gradient's norm is no substitute: Adagrad divides by what it has seen of the gradient, so the
    first step on a weight is ``lr`` long whatever the gradient is; and a few elements hardly show in the norm
    of all.

    It makes larger learning rates safe, and a shock in the data survivable. It is not meant to learn better
    than Adagrad where that is safe, and it does nothing about a gradient that is not finite (see
    ``edldist.SpikeGuard``).

    Works on any device and waits for none, on ``DTensor``s (s is then that of the whole tensor), under
    ``DistributedDataParallel`` and with torch's schedulers. The state has one tensor for each parameter, in
    its dtype, as Adagrad's. That cannot be float16, in which a gradient of 1e-4 has a square of 0, and one of
    300 an infinite one.

    Args:
        params: tensors, or groups of them, each with its own ``lr``, ``lambda_rel``, ``lambda_abs``, ``eps``.
        lr: learning rate, 0 or more.
        lambda_rel: by which share of itself a weight may change in a step, 0 or more.
        lambda_abs: what is added to that, above 0: what a weight of 0 may change by. The defaults of both are
            the paper's.
        initial_accumulator_value: of each element of G, 0 or more.
        eps: keeps the division finite, above 0.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        lambda_rel: float = 0.5,
        lambda_abs: float = 0.01,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        defaults = {
            "lr": lr,
            "lambda_rel": lambda_rel,
            "lambda_abs": lambda_abs,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
        }
        self._scales: list[Tensor] = []
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._scales = []

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with settings of their own.

        Raises:
            ConfigError: a setting is out of its range.
        """
        for name, positive in (
            *(("lr", False), ("lambda_rel", False), ("lambda_abs", True)),
            *(("initial_accumulator_value", False), ("eps", True)),
        ):
            value = param_group.get(name, self.defaults[name])
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (positive and value == 0):
                bound = "above 0" if positive else "of 0 or more"
                raise ConfigError(f"Clippy({name}={value!r}): use a number {bound}")
        super().add_param_group(param_group)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step with the gradients that there are.

        Args:
            closure: computes the loss and the gradients anew, as for any optimizer of torch.

        Returns:
            What it returned.

        Raises:
            InputError: a gradient is sparse, complex or float16. No weight has changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._check()
        self._scales = []
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None and weights.numel():
                    self._scales.append(self._step(weights, weights.grad, group))
        return loss

    def least_scale(self) -> float:
        """The least s of the last step: how much the most clipped tensor was; 1 where none was.

        Waits for the device. A collective where there are ``DTensor``s.
        """
        whole = (scale.full_tensor() if hasattr(scale, "full_tensor") else scale for scale in self._scales)
        return min((float(scale) for scale in whole), default=1.0)

    def _step(self, weights: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[weights]
        if not state:
            state["sum"] = torch.full_like(
                weights, group["initial_accumulator_value"], memory_format=torch.preserve_format
            )
        state["sum"].addcmul_(gradient, gradient)
        root = state["sum"].sqrt().add_(group["eps"])
        bound = weights.abs().mul_(group["lambda_rel"]).add_(group["lambda_abs"])
        # Where nothing moves, or lr is 0, this is infinite, as it should be: the bound is above 0.
        scale = bound.div_(gradient.div(root).abs_().mul_(group["lr"])).amin().clamp(max=1.0)
        weights.addcdiv_(gradient * scale, root, value=-group["lr"])
        return scale

    def _check(self) -> None:
        for number, group in enumerate(self.param_groups):
            for place, weights in enumerate(group["params"]):
                gradient = weights.grad
                if gradient is None:
                    continue
                if gradient.layout != torch.strided:
                    raise InputError(
                        f"Clippy: the gradient of parameter {place} of group {number} (shape "
                        f"{list(weights.shape)}) is sparse, and the bound is over all of its weights: make "
                        "the embedding with sparse=False, or give it an optimizer of its own"
                    )
                if gradient.is_complex():
                    raise InputError(
                        f"Clippy: parameter {place} of group {number} (shape {list(weights.shape)}) is "
                        "complex: train its view_as_real, or give it an optimizer of its own"
                    )
                if weights.dtype == torch.float16:
                    raise InputError(
                        f"Clippy: parameter {place} of group {number} (shape {list(weights.shape)}) is "
                        "float16, which has no room for the squares of its gradients (above 256 they are "
                        "infinite, below 2e-4 they are 0): keep weights in float32 and compute with "
                        "torch.autocast, or in bfloat16"
                    )
