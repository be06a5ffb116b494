"""Threads import nothing: a fork amid an import hangs, and a process that ends imports nothing any more."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys, threading

here, elsewhere = threading.get_ident(), []

def note(event, arguments):
    if event == "import" and threading.get_ident() != here:
        elsewhere.append(arguments[0])

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

import edldist

class Own:
    def __init__(self):
        self.rows = torch.ones(3)
        if sys.argv[2] == "sharded":
            self.rows = distribute_tensor(self.rows, init_device_mesh("cpu", (1,)), [Shard(0)])
    def state_dict(self):
        return {"rows": self.rows}
    def load_state_dict(self, state):
        self.rows = state["rows"]

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
checkpointer = edldist.Checkpointer(sys.argv[1])
sys.addaudithook(note)
checkpointer.save(1, {"own": Own()}, wait=True)
assert checkpointer.restore({"own": Own()}) == 1
print(sorted(set(elsewhere)))
"""
# Where an import stands inside a function of the framework, since it costs too much for those who do not need
# it. Each of these runs in the main thread of its process, or finds its module imported by one that does.
INSIDE = {
    "checkpoint/reader.py": {"edldist.checkpoint.shards"},
    "checkpoint/rng.py": {"numpy"},
    "checkpoint/snapshot.py": {"edldist.checkpoint.shards"},
    "checkpoint/stores/opening.py": {"edldist.checkpoint.stores.fsspec"},
    "checkpoint/tensorfile.py": {"torch.distributed.tensor"},
    "coordinator/running.py": {"resource"},
    "coordinator/occupant.py": {"psutil"},
    "observe/reporter.py": {"multiprocessing"},
    # Where somebody opens a store, or reads its labels in a script.
    "store/kept_batch.py": {"edldist.labels.codec", "torch"},
    "store/label_store.py": {"edldist.store.bucket"},
    # A worker loads its model, or looks at its engine, before it has threads that import.
    "teacher/engines/served_tokens.py": {"tokenizers"},
    "vocabulary/sources.py": {"transformers"},
    "teacher/model/huggingface.py": {"transformers"},
    "teacher/model/teacher.py": {"torch._dynamo"},
    "teacher/model/weights.py": {"safetensors.torch"},
    # Both imported by the poller's constructor, before there is a thread.
    "wire/zmq/endpoints.py": {"edldist.wire.shm.pairing"},
    "wire/zmq/poller.py": {"edldist.wire.shm.sharing", "edldist.wire.zmq.heap"},
}


@pytest.mark.parametrize("kind", [pytest.param("plain", marks=pytest.mark.slow), "sharded"])
def test_the_thread_that_writes_a_checkpoint_imports_nothing(tmp_path: Path, kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), kind],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_imports_inside_functions_are_those_whose_thread_is_known() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "edldist").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {name for node in ast.walk(function) for name in _imported(node)}
                if names:
                    found.setdefault(str(path.relative_to(ROOT / "edldist")), set()).update(names)
    assert found == INSIDE


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
