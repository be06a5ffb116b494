"""Labels come back the same over every lane; on a GPU, copies overlap the compute of other passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edldist.labels.codec import parse_codec
from edldist.labels.places import in_samples
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes.forward import Computed, Forward, PassTerms
from edldist.teacher.passes.lane import CudaLane, HostLane, lane_for

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LANES = [pytest.param("cpu", id="host"), pytest.param("cuda", id="cuda", marks=needs_gpu)]


def forward(device: str, model=None, **options) -> Forward:
    teacher = Teacher("torch.nn:Identity", torch.device(device))
    teacher._model = model or (lambda x: x * 2)
    return Forward(teacher, parse_codec("dense"), **options)


def fly(lane, parts, run: Forward):
    flight = lane.launch(parts, lambda inputs: run(inputs, PassTerms()))
    flight.wait()
    assert flight.done()
    return flight


@pytest.mark.parametrize("device", LANES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.int64, torch.bool])
def test_parts_of_a_batch_come_back_as_one_on_the_host(device, dtype):
    lane = lane_for(torch.device(device))
    x = torch.randint(0, 2, (10, 3, 4)).to(dtype)
    for parts in ([x], [x[:1], x[1:7], x[7:]]):
        flight = fly(lane, [{"x": part} for part in parts], forward(device, lambda x: x))
        labels, suspect, seconds = flight.labels()
        assert labels["logits"].device.type == "cpu" and torch.equal(labels["logits"], x)
        assert suspect is False and seconds >= 0


@pytest.mark.parametrize("device", LANES)
def test_strides_dicts_and_values_that_are_not_finite_survive(device):
    lane = lane_for(torch.device(device))

    def model(x):
        return {"t": x.transpose(1, 2), "e": x[:, :1, :1].expand(-1, 5, 1), "n": torch.log(x)}

    x = torch.rand(6, 3, 4) + 0.1
    labels, suspect, _ = fly(lane, [{"x": x}], forward(device, model)).labels()
    assert not suspect and torch.equal(labels["t"], x.transpose(1, 2))
    assert torch.equal(labels["e"], x[:, :1, :1].expand(-1, 5, 1))
    x[2, 1, 3] = -1.0
    flight = fly(lane, [{"x": x}], forward(device, model))
    assert flight.labels()[1] is True
    with pytest.raises(Exception, match=r"'n' has non-finite values in 1 of 6 .*sample 2"):
        forward(device, model).refuse(flight.computed)
    assert lane.recover()


@pytest.mark.parametrize("device", LANES)
def test_an_error_while_launching_leaves_the_lane_usable(device):
    lane = lane_for(torch.device(device))

    def broken(inputs) -> Computed:
        raise torch.OutOfMemoryError("no memory on purpose")

    with pytest.raises(torch.OutOfMemoryError):
        lane.launch([{"x": torch.ones(4)}], broken)
    assert lane.recover()
    assert fly(lane, [{"x": torch.ones(4)}], forward(device)).labels()[0]["logits"].tolist() == [2.0] * 4


def test_hosts_go_straight_through_and_only_cuda_overlaps():
    assert isinstance(lane_for(torch.device("cpu")), HostLane)
    assert isinstance(lane_for(torch.device("meta")), HostLane)
    x = torch.ones(3)
    seen = []
    HostLane().launch(
        [{"x": x}], lambda inputs: seen.append(inputs["x"]) or Computed({}, {}, {}, None, in_samples)
    )
    assert seen[0] is x  # a lone part is not copied


def _busy(model_ms: float):
    """A model that keeps the GPU busy for about that long, whatever its input."""

    def model(x):
        torch.cuda._sleep(int(model_ms * 1e6))
        return x.flatten(1)[:, :4] * 2

    return model


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnAGpu:
    def test_launching_does_not_wait_for_the_device(self):
        lane = CudaLane(torch.device("cuda"))
        run = forward("cuda", _busy(200))
        x = torch.ones(4, 8)
        fly(lane, [{"x": x}], forward("cuda"))
        flight = lane.launch([{"x": x}], lambda inputs: run(inputs, PassTerms()))
        assert not flight.done()
        flight.wait()
        assert flight.done() and flight.labels()[2] > 0.01

    def test_copies_of_one_pass_overlap_the_compute_of_another(self):
        """Two passes in flight take less than their parts one after another."""
        lane = CudaLane(torch.device("cuda"))
        x = torch.ones(64 << 20, dtype=torch.uint8).reshape(64, -1)
        run = forward("cuda", _busy(10))
        compute = lambda inputs: run(inputs, PassTerms())  # noqa: E731
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def took_ms(together: bool) -> float:
            begun.record()
            flights = []
            for _ in range(6):
                flights.append(lane.launch([{"x": x}], compute))
                if not together:
                    flights[-1].wait()
                elif len(flights) > 1:
                    flights[-2].wait()
            flights[-1].wait()
            ended.record()
            ended.synchronize()
            return begun.elapsed_time(ended)

        took_ms(True)
        alone, together = min(took_ms(False) for _ in range(3)), min(took_ms(True) for _ in range(3))
        print(f"six passes: {alone:.1f} ms one after another, {together:.1f} ms overlapped")
        assert together < alone

    def test_pinned_buffers_are_used_again(self):
        lane = CudaLane(torch.device("cuda"))
        x = torch.ones(1 << 20)
        places = set()
        for _ in range(20):
            places.add(fly(lane, [{"x": x}], forward("cuda")).labels()[0]["logits"].data_ptr())
        assert len(places) < 10

    def test_labels_stay_untouched_while_others_hold_them(self):
        lane = CudaLane(torch.device("cuda"))
        held = [
            fly(lane, [{"x": torch.full((1 << 16,), float(n))}], forward("cuda")).labels()[0]
            for n in range(30)
        ]
        for n, labels in enumerate(held):
            assert bool((labels["logits"] == 2 * n).all())

    def test_a_module_labels_as_on_the_default_stream(self):
        torch.manual_seed(0)
        device = torch.device("cuda")
        model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).to(device).eval()
        x = torch.randn(300, 32)
        with torch.inference_mode():
            expected = model(x.to(device)).cpu()
        lane, run = CudaLane(device), forward("cuda", model)
        for _ in range(20):
            assert torch.equal(fly(lane, [{"0": x}], run).labels()[0]["logits"], expected)
