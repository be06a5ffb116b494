"""The benchmarks' teachers answer what their variable says, for any number of samples."""

from __future__ import annotations

import os

import pytest
import torch

from edldist.labels.codec import parse_codec
from edldist_benchmarks.label_path import CASES, DRAWN, GATHERED, LARGE, LARGE_SHARED, TOKENS, Case
from edldist_benchmarks.teachers import copying, label_bytes, noop, parse_labels


def test_labels_have_a_dtype_and_a_shape_and_perhaps_a_name():
    assert parse_labels("float16:1000") == {"logits": (torch.float16, (1000,))}
    assert parse_labels("a=int32:4x2,b=float32:3") == {
        "a": (torch.int32, (4, 2)),
        "b": (torch.float32, (3,)),
    }
    assert label_bytes("a=int32:4x2,b=float16:3") == 38


@pytest.mark.parametrize("samples", [1, 8, 3])
def test_the_noop_teacher_labels_as_many_samples_as_it_gets(monkeypatch: pytest.MonkeyPatch, samples: int):
    monkeypatch.setenv("EDLDIST_BENCH_LABEL", TOKENS.labels)
    model = noop()
    model(torch.zeros(2, 1024, dtype=torch.int64))
    labels = model(torch.zeros(samples, 1024, dtype=torch.int64))
    assert {name: (tensor.dtype, list(tensor.shape)) for name, tensor in labels.items()} == {
        "packed": (torch.uint8, [samples, 1024, 196])
    }


def test_token_labels_are_as_large_as_their_codecs_make_them():
    logits = torch.zeros(1, 1, 50_257)
    for case, codec in ((TOKENS, "topk:64"), (DRAWN, "rs:18")):
        packed, _ = parse_codec(codec).pack({"logits": logits})
        assert case.label_bytes == 8 * 1024 * sum(tensor.nbytes for tensor in packed.values())
    asked = {"gather_ids": torch.zeros(1, 1, 1, dtype=torch.int64)}
    packed, _ = parse_codec("gather").pack({"logits": logits}, asked)
    assert GATHERED.label_bytes == 8 * 1024 * sum(tensor.nbytes for tensor in packed.values())


def test_the_copying_teacher_takes_batches_of_any_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDLDIST_BENCH_LABEL", "float32:10")
    model = copying()
    for samples in (4, 2, 8):
        assert model(torch.ones(samples, 3, 5, dtype=torch.uint8)).shape == (samples, 10)


def test_the_bytes_of_a_case_are_those_of_its_tensors():
    assert LARGE.input_bytes == 128 * 3 * 224 * 224
    assert LARGE.label_bytes == 128 * 1000 * 2
    assert TOKENS.label_bytes == 8 * 1024 * 196


def test_shared_batches_lie_in_shared_memory_and_differ():
    batches = LARGE_SHARED.batches()
    first, second = next(batches), next(batches)
    assert first.is_shared() and second.is_shared() and first.data_ptr() != second.data_ptr()
    assert not any(next(case.batches()).is_shared() for case in CASES.values() if not case.handed_over)


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.handed_over], ids=lambda c: c.name)
def test_batches_that_are_mapped_leave_no_descriptor_behind(case: Case) -> None:
    batches = case.batches()
    next(batches)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        next(batches)
    assert len(os.listdir("/proc/self/fd")) <= before + 1
