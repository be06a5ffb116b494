"""How far apart workers of one teacher are by rounding, and of another one by its weights (docs/teachers.md).

``python -m edldist_benchmarks.roundings``, in the project's folder, prints for the teachers of
``examples/digits`` and ``examples/lm``, which their ``prepare.py`` has trained, the least, median and largest
difference of questions of 32 digits, or 8 texts of 128 bytes.
"""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from edldist.labels.codec import parse_codec
from edldist.labels.comparison import Compared, differences
from edldist_benchmarks.processes import ROOT

__all__ = ["main"]

Answer = Callable[[Tensor], Mapping[str, Tensor]]
Case = tuple[nn.Module, list[Tensor], Callable[[int], tuple[Tensor, Tensor]]]

COMPARED = Compared()
TUNED = ((1, 1e-4), (10, 1e-4), (50, 1e-4), (50, 1e-3))


def digits() -> Case:
    """The teacher, questions, and batches to fine-tune it on."""
    from sklearn.datasets import load_digits

    from examples.digits.models import teacher

    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(images, size=16, mode="bilinear", align_corners=False)
    kinds = torch.tensor(found.target)
    questions = list(images[:1600].split(32))
    return _trained(teacher(), "digits"), questions, lambda i: (_part(images, i), _part(kinds, i))


def texts() -> Case:
    from examples.lm.models import teacher
    from examples.lm.text import Draws, read

    seen, other = Draws(read("all"), 320, 3), Draws(read("scarce"), 5000, 9)
    questions = [
        torch.stack([seen[8 * k + j]["tokens"][:-1] for j in range(8)]) for k in range(len(seen) // 8)
    ]

    def batch(number: int) -> tuple[Tensor, Tensor]:
        tokens = torch.stack([other[16 * number + j]["tokens"] for j in range(16)])
        return tokens[:, :-1], tokens[:, 1:]

    return _trained(teacher(), "lm"), questions, batch


def _part(whole: Tensor, number: int) -> Tensor:
    return whole[64 * number % 1600 :][:64]


def _trained(model: nn.Module, example: str) -> nn.Module:
    weights: Path = ROOT / "examples" / example / "build" / "teacher.safetensors"
    model.load_state_dict(load_file(weights))
    return model.eval()


def answering(model: nn.Module, cast: torch.dtype | None = None) -> Answer:
    """What a worker would answer with such a model, its inputs cast where they are floats."""

    def answer(inputs: Tensor) -> Mapping[str, Tensor]:
        made = model(inputs.to(cast) if cast is not None and inputs.is_floating_point() else inputs)
        outputs = made if isinstance(made, dict) else {"logits": made}
        return {name: tensor.float() for name, tensor in outputs.items()}

    return answer


def variants(model: nn.Module, batch: Callable[[int], tuple[Tensor, Tensor]]) -> Iterator[tuple[str, Answer]]:
    """The same teacher rounded otherwise, and other ones."""
    plain = answering(model)

    def halves(inputs: Tensor) -> Mapping[str, Tensor]:
        parts = [plain(part) for part in inputs.chunk(2)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def autocast(inputs: Tensor) -> Mapping[str, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(inputs)

    def int8(inputs: Tensor) -> Mapping[str, Tensor]:
        codec, outputs = parse_codec("int8"), plain(inputs)
        return {**outputs, **codec.decode(codec.encode({"logits": outputs["logits"]}))}

    yield "half of the batch", halves
    for dtype in (torch.float16, torch.bfloat16):
        yield f"{str(dtype)[6:]} weights", answering(copy.deepcopy(model).to(dtype), dtype)
    yield "bf16 autocast", autocast
    yield "labels by way of int8", int8
    linears = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    yield "int8 linear layers", answering(linears)
    for steps, lr in TUNED:
        yield f"fine-tuned for {steps} steps at {lr:g}", answering(tuned(model, steps, lr, batch))
    dropping = copy.deepcopy(model)
    for block in getattr(dropping, "blocks", ()):
        block.feed.append(nn.Dropout(0.1))
    yield "dropout left on", answering(dropping.train())
    torch.manual_seed(1)
    yield "other weights", answering(_fresh(model).eval())


def _fresh(model: nn.Module) -> nn.Module:
    """The same model before it was trained."""
    model = copy.deepcopy(model)
    for part in model.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
    return model


def tuned(
    model: nn.Module, steps: int, lr: float, batch: Callable[[int], tuple[Tensor, Tensor]]
) -> nn.Module:
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for step in range(steps):
        inputs, right = batch(step)
        made = model(inputs)
        logits = made["logits"] if isinstance(made, dict) else made
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, -2), right.flatten()).backward()
        optimizer.step()
    return model.eval()


@torch.inference_mode()
def spread(questions: list[Tensor], mine: Answer, its: Answer) -> dict[str, list[float]]:
    """By output, the difference in each question."""
    found: dict[str, list[float]] = {}
    for question in questions:
        answers = [COMPARED.decode(COMPARED.encode(answer(question))) for answer in (mine, its)]
        for each in differences(*answers):
            found.setdefault(f"{each.output}, {each.unit}", []).append(each.value)
    return found


def main() -> None:
    warnings.simplefilter("ignore")  # torch's, of quantisation
    torch.set_num_threads(1)
    for case in (digits, texts):
        torch.manual_seed(0)
        model, questions, batch = case()
        plain = answering(model)
        for name, answer in variants(model, batch):
            print(f"{case.__name__}, {name}")
            for output, values in spread(questions, plain, answer).items():
                least, middle, most = min(values), statistics.median(values), max(values)
                print(f"    {output:30} {least:.2g} {middle:.2g} {most:.2g}", flush=True)


if __name__ == "__main__":
    main()
