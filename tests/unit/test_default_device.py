"""A script may set another default device: helpers say where their own tensors are.

"meta" stands for any other device here: its tensors have no values, so whatever looks at one raises.
"""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest

from tests.forked import Program, outcomes_of

ROOT = Path(__file__).resolve().parents[2]
FACTORIES = {
    *("arange", "as_tensor", "asarray", "empty", "eye", "full", "linspace", "ones", "rand", "randint"),
    *("randn", "randperm", "scalar_tensor", "tensor", "zeros", "Generator"),
}
SOURCES = sorted((ROOT / "edldist").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_whoever_makes_a_tensor_says_where(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) == "torch" and node.func.attr in FACTORIES:
            named = {keyword.arg for keyword in node.keywords}
            assert "device" in named, f"{path.name}:{node.lineno} lets the script's default device decide"


SCRIPT = """
import json, sys
import torch, torch.distributed as dist
import edldist
from edldist.student.batch.batch import OpenBatch
rank, place, meeting = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
torch.set_default_device("meta")

class Box:
    value = torch.arange(3.0, device="cpu")
    def state_dict(self):
        return {"value": self.value}
    def load_state_dict(self, state):
        self.value = state["value"]
    def rank_state_dict(self):
        return self.value + rank
    def load_rank_state_dict(self, state):
        self.own = state

box, model = Box(), torch.nn.Linear(2, 2, device="cpu")
sampler = edldist.ElasticSampler(8, 4)
stops = [edldist.should_stop() for _ in range(2)]
with edldist.Checkpointer(place) as checkpointer:
    checkpointer.save(1, {"box": box, "model": model, "sampler": sampler}, wait=True)
    assert checkpointer.last_error is None, checkpointer.last_error
    box.value = None
    step = checkpointer.restore({"box": box, "model": model, "sampler": sampler})
logits = model.weight.detach()
loss = edldist.losses.kd(logits, logits, alpha=1.0, mask=torch.ones(2, dtype=torch.bool, device="cpu"))
print(json.dumps([stops, step, box.value.tolist(), box.own.tolist(), list(sampler)[0], loss.item()]))
dist.destroy_process_group()
"""


@pytest.mark.timeout(240)
def test_stopping_and_checkpoints_of_two_ranks_work_under_another_default_device(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EDLDIST_", "WORLD", "RANK"))}
    ranks = [
        Program(
            *(SCRIPT, str(rank), str(tmp_path / "checkpoints"), str(tmp_path / "meeting")),
            environment=environment,
        )
        for rank in range(2)
    ]
    outcomes = outcomes_of(ranks, 150)
    for number, (rank, (output, errors)) in enumerate(zip(ranks, outcomes, strict=True)):
        assert rank.returncode == 0, errors
        stops, step, value, own, indices, loss = json.loads(output)
        assert (stops, step, value, loss) == ([False, False], 1, [0.0, 1.0, 2.0], 0.0)
        assert own == [number, 1.0 + number, 2.0 + number] and len(indices) == 2
