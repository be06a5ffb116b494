"""Importing a module changes nothing in the process: whoever wants a handler or a thread makes an object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OTHERS = (
    *("torch", "torch.distributed.checkpoint", "torch.distributed.tensor", "numpy", "safetensors.torch"),
    *("zmq.utils.garbage", "msgspec", "yaml", "pydantic", "click", "psutil", "fsspec", "rich.live"),
    *("concurrent.futures.thread", "asyncio", "http.server", "urllib.request", "multiprocessing.util"),
)
"""What others change when their modules are imported is theirs: it is done before the first look."""

SCRIPT = """
import atexit, gc, importlib, json, logging, os, random, resource, signal, socket, sys, threading, warnings

others, ours = json.loads(sys.argv[1])
at_fork = []
register, os.register_at_fork = os.register_at_fork, lambda **how: at_fork.append(sorted(how))
for name in others:
    importlib.import_module(name)
import torch
at_fork.clear()

def looks():
    umask = os.umask(0o22)
    os.umask(umask)
    loggers = map(logging.getLogger, (None, "edldist", "edldist_launch", "torch", "asyncio"))
    return {
        "signals": {int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()},
        "exit handlers": [atexit._ncallbacks(), len(threading._threading_atexits)],
        "handlers of forks": len(at_fork),
        "threads": [sorted(each.name for each in threading.enumerate()), len(os.listdir("/proc/self/task"))],
        "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
        "files": len(os.listdir("/proc/self/fd")),
        "environment": dict(os.environ),
        "place": [os.getcwd(), umask, os.nice(0), list(sys.path), [repr(each) for each in sys.meta_path]],
        "limits": [resource.getrlimit(kind) for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "warnings": [repr(warnings.filters), repr(warnings.showwarning)],
        "hooks": [repr(each) for each in (sys.excepthook, threading.excepthook, sys.unraisablehook)],
        "streams": [repr(sys.stdout), repr(sys.stderr)],
        "logging": [[repr(each.handlers), each.level, each.propagate] for each in loggers],
        "random numbers": [hash(random.getstate()), torch.initial_seed(), torch.get_rng_state().sum().item()],
        "torch": [
            *(str(torch.get_default_dtype()), str(torch.get_default_device()), torch.get_num_threads()),
            *(torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
            *(torch.multiprocessing.get_sharing_strategy(), torch.get_float32_matmul_precision()),
        ],
        "interpreter": [gc.get_threshold(), len(gc.callbacks), sys.getswitchinterval()],
        "sockets": socket.getdefaulttimeout(),
    }

before, found = looks(), {}
for name in ours:
    importlib.import_module(name)
    after = looks()
    if changed := [what for what in after if after[what] != before[what]]:
        found[name] = changed
    before = after
print(json.dumps(found))
"""


def _modules(folder: str, name: str) -> list[str]:
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = [name, *path.relative_to(ROOT / folder).with_suffix("").parts]
        if parts[-1] != "__main__" and "integrations" not in parts:
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return found


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("folder", "name"),
    [("edldist", "edldist"), pytest.param("launch", "edldist_launch", marks=pytest.mark.slow)],
)
def test_no_module_changes_the_process_that_imports_it(folder: str, name: str) -> None:
    """Integrations are left out: the libraries that they import change a lot."""
    modules = _modules(folder, name)
    assert len(modules) > 100
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([OTHERS, modules])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1]) == {}
