"""``kubectl`` for a Kubernetes of 1.20: what that lacks is left out of what is made there, or made older.

::

    kubectl create -f -      the objects below are changed on their way; every change is noted in CONVERTED
    kubectl ANYTHING ELSE    runs as it is

1.20 knows no rules for failed pods, and no policy/v1. Its scaler is the HPA alone: in place of a ScaledObject
it gets the HPA that KEDA would make of it (``keda``); the secret of its trigger it does not need.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

Object = dict[str, Any]


def older(each: Object) -> tuple[Object, list[str]]:
    """An object as 1.20 takes it, and what was changed."""
    said = []
    if each["kind"] == "Job" and each["spec"].pop("podFailurePolicy", None) is not None:
        said.append("without podFailurePolicy")
    for container in _containers(each):
        container["resources"]["requests"]["cpu"] = "100m"
        said.append(f"container {container['name']} asks for a tenth of a CPU: the node has two")
    if each["kind"] == "PodDisruptionBudget":
        each["apiVersion"] = "policy/v1beta1"
        each["spec"].pop("unhealthyPodEvictionPolicy", None)
        said.append("as policy/v1beta1, without unhealthyPodEvictionPolicy")
    return each, [f"{each['kind']} {each['metadata']['name']}: {words}" for words in said]


def _containers(each: Object) -> list[Object]:
    pod = each.get("spec", {}).get("template", {}).get("spec", {})
    found: list[Object] = [*pod.get("initContainers", ()), *pod.get("containers", ())]
    return found


def main() -> None:
    real, arguments = os.environ["REAL_KUBECTL"], sys.argv[1:]
    if arguments[:1] != ["create"] or "-" not in arguments:
        os.execv(real, [real, *arguments])
    each, said = older(json.load(sys.stdin))
    with Path(os.environ["CONVERTED"]).open("a", encoding="utf-8") as notes:
        notes.writelines(f"{line}\n" for line in said)
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        with os.fdopen(write_end, "w") as pipe:
            json.dump(each, pipe)
        os._exit(0)
    os.close(write_end)
    os.dup2(read_end, 0)
    os.execv(real, [real, *arguments])


if __name__ == "__main__":
    main()
