"""Labels that a later pass could change get memory of their own; others travel uncopied."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edldist.labels.codec import parse_codec
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Forward, PassTerms

X = {"x": torch.arange(6.0).reshape(3, 2)}


def passes(model, count: int = 3, codec: str = "dense", inputs=X) -> list[dict[str, Tensor]]:
    """The labels of some passes, as they are when all of them are over."""
    teacher = Teacher("tests.models:identify", torch.device("cpu"))
    teacher._model = model
    forward = Forward(teacher, parse_codec(codec))
    return [
        forward({name: tensor + number for name, tensor in inputs.items()}, PassTerms()).packed
        for number in range(count)
    ]


def shared(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


class Buffer:
    """Writes each pass's labels to one buffer, and returns it or some of it."""

    def __init__(self, returned) -> None:
        self.buffer = torch.zeros(5, 2)
        self.returned = returned

    def __call__(self, x: Tensor):
        self.buffer[:3] = x
        return self.returned(self.buffer)


def test_the_premise_torch_counts_writes_made_in_inference_mode():
    buffer = torch.zeros(2)
    before = buffer._version
    with torch.inference_mode():
        buffer.add_(1)
    assert buffer._version > before


@pytest.mark.parametrize(
    "returned",
    [
        lambda buffer: buffer[:3],
        lambda buffer: {"y": buffer[:3], "z": buffer[:3, :1]},
        lambda buffer: buffer[:3].view(3, 1, 2),
    ],
    ids=["part", "two parts", "reshaped"],
)
def test_labels_in_a_buffer_that_is_written_to_again_are_those_of_their_own_pass(returned):
    model = Buffer(returned)
    for number, labels in enumerate(passes(model)):
        for tensor in labels.values():
            assert torch.equal(tensor.flatten()[0], torch.tensor(float(number)))
            assert not shared(tensor, model.buffer)


def test_a_tensor_object_that_is_returned_again_and_again_is_seen_too():
    class Same:
        def __init__(self) -> None:
            self.out = torch.zeros(3, 2)

        def __call__(self, x: Tensor) -> Tensor:
            return torch.mul(x, 1, out=self.out)

    first, second, third = (labels["logits"] for labels in passes(Same()))
    assert [first[0, 0].item(), second[0, 0].item(), third[0, 0].item()] == [0, 1, 2]


def test_a_dictionary_that_the_model_keeps_gives_its_tensors_away():
    class Keeping:
        def __init__(self) -> None:
            self.last: dict[str, Tensor] = {"y": torch.zeros(3, 2)}

        def __call__(self, x: Tensor) -> dict[str, Tensor]:
            self.last["y"].copy_(x)
            return self.last

    assert [labels["y"][0, 0].item() for labels in passes(Keeping())] == [0, 1, 2]


def test_buffers_that_take_turns_are_copied_as_one_is():
    class Turns:
        def __init__(self) -> None:
            self.buffers = [torch.zeros(3, 2), torch.zeros(3, 2)]

        def __call__(self, x: Tensor) -> Tensor:
            self.buffers.reverse()
            return self.buffers[0].copy_(x)

    assert [labels["logits"][0, 0].item() for labels in passes(Turns(), 5)] == [0, 1, 2, 3, 4]


def test_memory_made_in_inference_mode_of_which_no_writes_are_counted_is_copied():
    class Late:
        buffer: Tensor | None = None

        def __call__(self, x: Tensor) -> Tensor:
            if self.buffer is None:
                self.buffer = torch.zeros(3, 2)
            return self.buffer.copy_(x)

    assert [labels["logits"][0, 0].item() for labels in passes(Late())] == [0, 1, 2]


def test_labels_that_the_model_keeps_and_only_reads_are_copied_once():
    model = Buffer(None)
    kept = model.buffer
    labels = passes(lambda x: kept[:3], 4)
    assert [shared(each["logits"], kept) for each in labels] == [False, True, True, True]


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        made = self.layer(x)
        self.seen.append(made.data_ptr())
        return {"logits": made, "left": made[:, :1]}


def test_fresh_labels_travel_in_the_memory_in_which_they_were_made():
    model = Linear()
    labels = passes(model)
    assert [each["logits"].data_ptr() for each in labels] == model.seen
    assert [each["left"].data_ptr() for each in labels] == model.seen


def test_what_a_codec_made_needs_no_copy():
    model = Buffer(lambda buffer: {"scores": buffer[:3]})
    packed = [labels["scores"] for labels in passes(model, codec="dense:fp16")]
    assert [tensor[0, 0].item() for tensor in packed] == [0, 1, 2]
    assert all(tensor.untyped_storage().nbytes() == 12 for tensor in packed)


def test_inputs_that_come_back_as_labels_are_copied():
    teacher = Teacher("tests.models:identify", torch.device("cpu"))
    teacher._model = lambda x: x
    given = torch.zeros(3, 2)
    packed = Forward(teacher, parse_codec("dense"))({"x": given}, PassTerms()).packed
    assert not shared(packed["logits"], given)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_outputs_of_a_cuda_graph_are_those_of_their_own_pass():
    class Graphed:
        def __init__(self) -> None:
            self.given = torch.zeros(3, 2, device="cuda")
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.made = self.given * 2

        def __call__(self, x: Tensor) -> Tensor:
            self.given.copy_(x)
            self.graph.replay()
            return self.made

    teacher = Teacher("tests.models:identify", torch.device("cuda"))
    teacher._model = Graphed()
    forward = Forward(teacher, parse_codec("dense"))
    labels = [forward({"x": torch.full((3, 2), number)}, None, False).packed for number in range(3)]
    assert [each["logits"][0, 0].item() for each in labels] == [0, 2, 4]
