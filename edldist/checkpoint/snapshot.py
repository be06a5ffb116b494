"""The training state of one rank at one step: taken, compared with a checkpoint, and put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import nn

from edldist.checkpoint.rank_state import RankStateful
from edldist.checkpoint.registry import states_taken
from edldist.checkpoint.sameness import SharedValues, values_of
from edldist.checkpoint.tree import Json, TensorInfo, info_of, is_sharded, pack, placeholders, unpack
from edldist.errors import CheckpointError

if TYPE_CHECKING:
    from edldist.checkpoint.shards import Shards

__all__ = ["Snapshot", "Stateful"]

SHOWN = 5  # keys named of each kind of difference


@runtime_checkable
class Stateful(Protocol):
    """Anything whose state a checkpoint can hold."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Snapshot:
    """Structure and tensors of ``state``, by reference: no tensor is copied until `staged`.

    Modules are seen through ``DistributedDataParallel`` and ``torch.compile``, so that wrapped and bare ones
    give the same keys.

    Attributes:
        tree: for each name of the state, the JSON tree of its state dict.
        tensors: the tensors that the trees refer to, by key.
        taken: the objects of the registry whose state is in the trees, however deep.
        holders: by name, who has something of each rank's own: the object of that name, or else what the
            registry found in it. An object that speaks for itself speaks for what it holds.

    Raises:
        CheckpointError: an object without ``state_dict``/``load_state_dict``, or a value of a type that no
            checkpoint can hold; named by its path.
    """

    def __init__(self, state: Mapping[str, Stateful]) -> None:
        self.tree: dict[str, Json] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self.taken: list[object] = []
        self.holders: dict[str, list[RankStateful]] = {}
        self._objects: dict[str, Stateful] = {}
        for name, value in state.items():
            if not isinstance(name, str) or not name or "/" in name:
                raise CheckpointError(f"the state has the name {name!r}: use non-empty names without '/'")
            if not isinstance(value, Stateful):
                raise CheckpointError(
                    f"state[{name!r}] is a {type(value).__qualname__} without state_dict() and "
                    "load_state_dict(): wrap plain values in an object that has both"
                )
            if name == "__metadata__":
                raise CheckpointError("the state has the name '__metadata__', which files of tensors reserve")
            self._objects[name] = unwrapped(value)
            with states_taken() as taken:
                state_dict = self._objects[name].state_dict()
            self.taken += taken
            speakers = [self._objects[name]] if isinstance(self._objects[name], RankStateful) else taken
            if holders := [thing for thing in speakers if isinstance(thing, RankStateful)]:
                self.holders[name] = holders
            self.tree[name], tensors = pack(state_dict, name)
            self.tensors.update(tensors)

    def shared_values(self) -> dict[str, SharedValues]:
        """What has to be equal on all ranks, by name."""
        return {
            name: values_of(
                tree, self.tensors, not isinstance(self._objects[name], (nn.Module, torch.optim.Optimizer))
            )
            for name, tree in self.tree.items()
        }

    def staged(self, rank: int) -> tuple[dict[str, torch.Tensor], Shards | None]:
        """Copies in host memory of the tensors that this rank has to write: whole ones, and sharded ones.

        Whole tensors are rank 0's alone: under DDP its buffers are the ones that count. Sharded ones
        (``DTensor``) are staged everywhere.
        """
        whole: dict[str, torch.Tensor] = {}
        sharded: dict[str, torch.Tensor] = {}
        in_flight: set[torch.device] = set()
        for key, tensor in self.tensors.items():
            tensor = tensor.detach()
            if is_sharded(tensor):
                sharded[key] = tensor.to("cpu", copy=True)
            elif rank == 0 and tensor.is_cuda:
                # Pinned, so that the copies of all tensors overlap and are waited for once.
                host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
                whole[key] = host.copy_(tensor, non_blocking=True)
                in_flight.add(tensor.device)
            elif rank == 0:
                whole[key] = tensor.to("cpu", copy=True).contiguous()
        for device in in_flight:
            torch.cuda.synchronize(device)
        if not sharded:
            return whole, None
        # Here, and not in the thread that writes: a fork in the middle of an import would leave the child
        # with a lock that nobody gives back, and a process that ends imports nothing any more.
        from edldist.checkpoint.shards import Shards

        return whole, Shards(sharded)

    def differences(self, saved: Mapping[str, Json], own: Mapping[str, Sequence[Any]]) -> list[str]:
        """Why a checkpoint does not fit this state, one line each; empty if it fits.

        Modules must agree in every key, shape and dtype, optimizers in their parameter groups and in the
        shapes that both have, sharded tensors of any object in shape. Other objects judge for themselves.

        Args:
            saved: the trees of the checkpoint.
            own: this rank's own states in it.
        """
        lines = _lines("state", saved.keys() - self.tree.keys(), self.tree.keys() - saved.keys(), [])
        for name in sorted(self.tree.keys() & saved.keys()):  # the same text on every rank
            here, there = dict(placeholders(self.tree[name])), dict(placeholders(saved[name]))
            missing: set[str] = set()
            unexpected: set[str] = set()
            compared = {key for key in here.keys() & there.keys() if is_sharded(self.tensors[key])}
            if isinstance(self._objects[name], nn.Module):
                missing, unexpected = here.keys() - there.keys(), there.keys() - here.keys()
                compared = here.keys() & there.keys()
            elif isinstance(self._objects[name], torch.optim.Optimizer):
                compared = here.keys() & there.keys()
                sizes_here, sizes_there = _group_sizes(self.tree[name]), _group_sizes(saved[name])
                if sizes_here != sizes_there:
                    lines.append(
                        f"{name}: parameter groups of {sizes_there} parameters in the checkpoint, of "
                        f"{sizes_here} here"
                    )
            shapes = [
                f"{_short(key, name)} ({there[key]} in the checkpoint, {here[key]} here)"
                for key in here
                if key in compared and here[key] != there[key]
            ]
            strip = {key: _short(key, name) for key in missing | unexpected}
            lines += _lines(name, {strip[k] for k in unexpected}, {strip[k] for k in missing}, shapes)
            saved_own, takers = len(own.get(name, ())), len(self.holders.get(name, ()))
            if saved_own and saved_own != takers:
                lines.append(
                    f"{name}: the checkpoint has a state of each rank's own of {saved_own} object(s), here "
                    f"{takers} take one (load_rank_state_dict)"
                )
        return lines

    def targets(self, saved: Mapping[str, Json]) -> dict[str, torch.Tensor]:
        """Fresh tensors to read a checkpoint into, for every tensor that it holds.

        Sharded as this state's are, whatever the sharding was at save time; optimizer state that this
        optimizer has not built yet is sharded as its parameter.
        """
        targets: dict[str, torch.Tensor] = {}
        for name, tree in saved.items():
            target = self._objects[name]
            parameters = _parameters(target) if isinstance(target, torch.optim.Optimizer) else []
            for key, info in placeholders(tree):
                like = self.tensors.get(key)
                if like is None and parameters:
                    like = _owner(key, info, parameters)
                dtype = getattr(torch, info.dtype)
                if like is not None and is_sharded(like):
                    targets[key] = torch.empty_like(like.detach(), dtype=dtype)
                else:
                    # Modules and optimizers move what they load; other objects get it where theirs was.
                    stays = like is not None and not isinstance(target, (nn.Module, torch.optim.Optimizer))
                    device = like.device if like is not None and stays else torch.device("cpu")
                    targets[key] = torch.empty(info.shape, dtype=dtype, device=device)
        return targets

    def put_back(self, saved: Mapping[str, Json], tensors: Mapping[str, torch.Tensor]) -> None:
        """Load a checkpoint's values into the objects of this state, in the state's order."""
        for name, target in self._objects.items():
            value = unpack(saved[name], tensors.__getitem__)
            try:
                target.load_state_dict(value)
            except Exception as exc:
                raise CheckpointError(
                    f"state[{name!r}] ({type(target).__qualname__}) did not accept its saved state: "
                    f"{type(exc).__name__}: {exc}. The objects before it are restored already; "
                    "do not train on"
                ) from exc


def unwrapped(value: Any) -> Any:
    """The module inside DDP and ``torch.compile`` wrappers; anything else unchanged."""
    while True:
        if isinstance(value, nn.parallel.DistributedDataParallel):
            value = value.module
        elif isinstance(value, nn.Module) and isinstance(getattr(value, "_orig_mod", None), nn.Module):
            value = value._orig_mod
        else:
            return value


def _lines(where: str, unexpected: Any, missing: Any, shapes: list[str]) -> list[str]:
    lines = []
    for what, keys in (
        ("missing in the checkpoint", sorted(missing)),
        ("only in the checkpoint", sorted(unexpected)),
        ("different", shapes),
    ):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            lines.append(f"{where}: {what}: {', '.join(keys[:SHOWN])}{more}")
    return lines


def _short(key: str, name: str) -> str:
    return key.removeprefix(f"{name}/")


def _group_sizes(tree: Json) -> list[int]:
    groups = tree.get("param_groups", []) if isinstance(tree, dict) else []
    return [len(group.get("params", [])) for group in groups]


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _owner(key: str, info: TensorInfo, parameters: list[torch.Tensor]) -> torch.Tensor | None:
    """The parameter whose state ``<name>/state/<index>/...`` is, if it has that very shape."""
    parts = key.split("/")
    if len(parts) < 4 or parts[1] != "state" or not parts[2].isdigit() or int(parts[2]) >= len(parameters):
        return None
    parameter = parameters[int(parts[2])]
    return parameter if info_of(parameter).shape == info.shape else None
