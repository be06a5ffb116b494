"""A worker sends its labels in another codec where a student asks for that, or says at once why not."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import CodecError, UnfitCodecError
from edldist.labels.codec import make_codec, parse_codec
from edldist.labels.gather import GATHER_IDS
from edldist.labels.grammar import CodecSpec, parse_spec
from edldist.teacher.engines.forward import EngineForward
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes import forward as forward_module
from edldist.teacher.passes.forward import Forward, PassTerms

IDS = {"ids": torch.tensor([3, 40, 7])}


@pytest.fixture
def teacher() -> Teacher:
    return Teacher("tests.models:scores", torch.device("cpu"))


@pytest.mark.parametrize("codec", ["topk:2", "int8", "dense:fp16", "rs:8", "head+rs:2:4", "topp:0.5:4"])
def test_the_same_outputs_are_packed_as_a_worker_of_that_codec_packs_them(teacher: Teacher, codec: str):
    spec = parse_spec(codec)
    made = Forward(teacher, parse_codec("topk:4"))(IDS, PassTerms(fixed=True, codec=spec))
    own = Forward(teacher, parse_codec(codec))(IDS, PassTerms(fixed=True))
    assert made.packed.keys() == own.packed.keys()
    assert all(torch.equal(tensor, own.packed[name]) for name, tensor in made.packed.items())


def test_passes_in_turn_have_each_the_codec_that_was_asked_for(teacher: Teacher, monkeypatch):
    monkeypatch.setattr(forward_module, "_MOST_CODECS", 2)
    forward = Forward(teacher, parse_codec("topk:4"))
    for kept in (None, 1, 2, 3, None, 1):
        spec = None if kept is None else parse_spec(f"topk:{kept}")
        packed = forward(IDS, PassTerms(codec=spec)).packed
        labels = make_codec(spec or parse_spec("topk:4")).decode(packed)["logits"]
        assert labels.ids.shape == (3, kept or 4)


def test_what_is_asked_of_the_workers_own_codec_is_no_input_of_the_model(teacher: Teacher):
    asked = IDS | {GATHER_IDS: torch.zeros(3, 2, dtype=torch.int64)}
    packed = Forward(teacher, parse_codec("gather"))(asked, PassTerms(codec=parse_spec("topk:2"))).packed
    assert parse_codec("topk:2").decode(packed)["logits"].ids[:, 0].tolist() == [3, 40, 7]


def test_a_worker_says_which_labels_it_is_asked_for_in_vain(teacher: Teacher):
    forward = Forward(teacher, parse_codec("topk:4"))
    assert forward.makes(parse_spec("topk:2")) == ""
    assert f"asks for {GATHER_IDS}, which do not come" in forward.makes(CodecSpec("gather"))
    assert "no such codec" in forward.makes(CodecSpec("zip"))
    with pytest.raises(CodecError, match="no such codec"):
        forward(IDS, PassTerms(codec=CodecSpec("zip")))


def test_an_engine_has_no_other_labels_than_those_that_it_was_opened_for():
    class Asked:
        path, vocabulary = "http://engine", 300

    forward = EngineForward(Asked(), parse_codec("topk:4"))  # type: ignore[arg-type]
    assert "labels come in that alone" in forward.makes(parse_spec("topk:2"))
    with pytest.raises(UnfitCodecError, match="codec topk:4 needs"):
        forward({"input_ids": torch.zeros(1, 1)}, PassTerms(codec=parse_spec("topk:2")))
