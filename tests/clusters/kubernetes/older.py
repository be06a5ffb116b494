"""``kubectl`` for a Kubernetes of 1.20: what that lacks is left out of what is made there, or made older.

::

    python -m ... create -f - ...    the object is changed on its way; every change is noted in $CONVERTED

1.20 has no rules for failed pods and no policy/v1, and its node has two CPUs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["CONVERTED", "REAL", "older"]

Object = dict[str, Any]
CONVERTED, REAL = "CONVERTED", "REAL_KUBECTL"


def older(each: Object) -> list[str]:
    """Make an object one that 1.20 takes; what was changed."""
    said = []
    if each["kind"] == "Job" and each["spec"].pop("podFailurePolicy", None) is not None:
        each["spec"]["backoffLimit"] = 100
        said.append("without podFailurePolicy, with a backoffLimit of 100")
    if each["kind"] == "PodDisruptionBudget":
        each["apiVersion"] = "policy/v1beta1"
        each["spec"].pop("unhealthyPodEvictionPolicy", None)
        said.append("as policy/v1beta1, without unhealthyPodEvictionPolicy")
    for container in _containers(each):
        container["resources"]["requests"]["cpu"] = "100m"
        said.append(f"container {container['name']} asks for a tenth of a CPU")
    return [f"{each['kind']} {each['metadata']['name']}: {words}" for words in said]


def _containers(each: Object) -> list[Object]:
    pod = each.get("spec", {}).get("template", {}).get("spec", {})
    found: list[Object] = [*pod.get("initContainers", ()), *pod.get("containers", ())]
    return found


def main() -> int:
    each = json.load(sys.stdin)
    said = older(each)
    with Path(os.environ[CONVERTED]).open("a", encoding="utf-8") as notes:
        notes.writelines(f"{line}\n" for line in said)
    command = [os.environ[REAL], *sys.argv[1:]]
    return subprocess.run(command, input=json.dumps(each), text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
