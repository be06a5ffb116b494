"""Reads the manifests in ``k8s`` as ``kubectl kustomize`` does. Pure, but for reading files.

This is the part of kustomize that ``k8s`` keeps to: resources (files, or folders with a kustomization),
components, and patches by strategic merge. Whatever else a kustomization says is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from edldist.errors import ConfigError

__all__ = ["MANIFESTS", "Object", "apply_component", "merge", "read_kustomization"]

MANIFESTS = Path(__file__).resolve().parent / "k8s"
Object = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "resources", "components", "patches"}
_MERGED_BY = {
    **dict.fromkeys(("containers", "initContainers", "env", "volumes"), "name"),
    "volumeMounts": "mountPath",
}
"""Lists of which the members are told apart by a key. Of others the patch's takes the place of the whole."""


def read_kustomization(folder: Path) -> list[Object]:
    """All objects of a kustomization, in the order of its files, components applied.

    Raises:
        ConfigError: it says something that this reader does not know, or a patch is of no object.
    """
    return copy.deepcopy(list(_read(folder)))


def apply_component(objects: Iterable[Object], name: str) -> list[Object]:
    """Objects with what a component of ``k8s/components`` changes in them.

    Args:
        objects: which of the base's there are; a component's patches of others are left out.
        name: the folder.

    Returns:
        The changed objects, and after them those that the component adds.
    """
    folder = MANIFESTS / "components" / name
    document = _document(folder)
    changed = {_identity(each): each for each in objects}
    for patch in _patches(folder, document):
        if _identity(patch) in changed:
            _patch(changed, patch)
    return [*changed.values(), *copy.deepcopy(list(_resources(folder, document)))]


def merge(into: Any, patch: Any) -> Any:
    """What a strategic merge of a patch makes of a value; neither is changed.

    Mappings are merged key by key (null removes one), lists of ``_MERGED_BY`` member by member, new members
    first; everything else is replaced.
    """
    if not (isinstance(into, dict) and isinstance(patch, dict)):
        return copy.deepcopy(patch)
    merged = dict(into)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif key in _MERGED_BY and isinstance(merged.get(key), list):
            merged[key] = _merge_members(merged[key], value, _MERGED_BY[key])
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _merge_members(into: list[Any], patch: list[Any], key: str) -> list[Any]:
    patches = {each[key]: each for each in patch}
    old = {each[key] for each in into}
    new = [copy.deepcopy(each) for each in patch if each[key] not in old]
    return [*new, *(merge(each, patches.get(each[key], {})) for each in into)]


# --- files ------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _read(folder: Path) -> tuple[Object, ...]:
    document = _document(folder)
    objects = {_identity(each): each for each in _resources(folder, document)}
    for each in document.get("components", []):
        component = (folder / each).resolve()
        settings = _document(component)
        objects |= {_identity(added): added for added in _resources(component, settings)}
        for patch in _patches(component, settings):
            _patch(objects, patch)
    for patch in _patches(folder, document):
        _patch(objects, patch)
    return tuple(objects.values())


def _document(folder: Path) -> Object:
    path = folder / "kustomization.yaml"
    document = _load(path)[0]
    if unknown := document.keys() - _KNOWN:
        raise ConfigError(f"{path}: unknown here: {', '.join(sorted(unknown))}")
    return document


def _resources(folder: Path, document: Object) -> Iterable[Object]:
    for each in document.get("resources", []):
        path = (folder / each).resolve()
        yield from read_kustomization(path) if path.is_dir() else _load(path)


def _patches(folder: Path, document: Object) -> Iterable[Object]:
    for each in document.get("patches", []):
        yield from _load(folder / each["path"])


def _patch(objects: dict[tuple[str, str, str], Object], patch: Object) -> None:
    identity = _identity(patch)
    if identity not in objects:
        raise ConfigError(f"a patch is of {' '.join(identity)}, which there is not")
    if patch.get("$patch") == "delete":
        del objects[identity]
    else:
        objects[identity] = merge(objects[identity], patch)


def _load(path: Path) -> list[Object]:
    with path.open(encoding="utf-8") as stream:
        return list(yaml.safe_load_all(stream))


def _identity(each: Object) -> tuple[str, str, str]:
    return each["apiVersion"], each["kind"], each["metadata"]["name"]
