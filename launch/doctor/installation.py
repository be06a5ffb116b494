"""Whether Python, torch and what else jobs import is there."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from edldist_launch.doctor.finding import Finding, fail, ok, warn
from edldist_launch.process.version import own_version

__all__ = ["check_extras", "check_python", "check_torch"]

TORCH_S = 120.0
OLDEST_TORCH = (2, 6)
NVIDIA = Path("/proc/driver/nvidia/version")
# In a process of its own: a broken torch may crash or hang, and this one shall hold no device.
_LOOK = """
import json, torch
accelerator, names = "", []
if torch.accelerator.is_available():
    accelerator = torch.accelerator.current_accelerator().type
    module = getattr(torch, accelerator)
    names = [module.get_device_name(each) for each in range(torch.accelerator.device_count())]
    torch.ones(1, device=accelerator).add_(1).cpu()
torch.ones(8, 8) @ torch.ones(8, 8)
print(json.dumps({"version": torch.__version__, "accelerator": accelerator, "names": names}))
"""
EXTRAS = {
    "lightning": ("lightning", "Lightning's loops"),
    "transformers": ("huggingface", "Hugging Face's models and Trainer"),
    "accelerate": ("accelerate", "Accelerate's loops"),
    "matplotlib": ("plot", "curves.png"),
    "sklearn": ("examples", "the data of the examples and of edldist init"),
}


def check_python() -> Iterator[Finding]:
    """The interpreter, and what edldist itself depends on."""
    yield ok("python", f"{platform.python_version()} ({sys.executable}), {own_version()}")


def check_torch() -> Iterator[Finding]:
    """Torch, and the devices that it computes on."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOOK], capture_output=True, text=True, check=False, timeout=TORCH_S
        )
    except subprocess.TimeoutExpired:
        yield fail(
            "torch",
            f"importing torch and using a device took more than {TORCH_S:.0f} s",
            "look at the disk that torch lies on, and at its devices (nvidia-smi)",
        )
        return
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with exit code {done.returncode}"]
        yield fail(
            "torch",
            f"torch cannot be used: {said[0]}",
            f"{sys.executable} -c 'import torch' shows all of it; install torch anew, as pytorch.org says",
        )
        return
    found = json.loads(done.stdout.splitlines()[-1])
    version = str(found["version"])
    names = ", ".join(dict.fromkeys(found["names"]))
    where = f"{len(found['names'])} of {found['accelerator']} ({names})" if found["names"] else "CPUs only"
    if _version(version) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        yield fail("torch", f"{version} is older than {oldest}", f"pip install 'torch>={oldest}'")
    else:
        yield ok("torch", version)
    if not found["names"] and NVIDIA.exists():
        yield warn(
            "devices",
            f"torch {version} finds no device, though this machine has NVIDIA's driver",
            "install a torch for CUDA, as pytorch.org says, and give containers their devices (--gpus all)",
        )
    else:
        yield ok("devices", where)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:2] if part.isdecimal())


def check_extras() -> Iterator[Finding]:
    """Libraries that only some jobs need."""
    here = [module for module in EXTRAS if util.find_spec(module) is not None]
    missing = [
        f"{module} ({EXTRAS[module][1]}: pip install 'edldist[{EXTRAS[module][0]}]')"
        for module in EXTRAS
        if module not in here
    ]
    parts = [f"here: {', '.join(here) or 'none'}"] + ([f"not here: {'; '.join(missing)}"] if missing else [])
    yield ok("extras", "; ".join(parts))
