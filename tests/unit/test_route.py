"""Which teacher labels which sample, and labels of several as one set."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from edldist.errors import ConfigError, InputError, LabelError
from edldist.labels.codec import parse_codec
from edldist.labels.packing import Codec
from edldist.labels.typed import TopKLabels
from edldist.student.decoding.decoding import Decoding
from edldist.student.decoding.joined import joined
from edldist.student.inputs.inputs import TeacherInputSelector
from edldist.student.inputs.route import Route
from edldist.student.inputs.sequences import Sequences
from edldist.student.teachers.asked_teachers import AskedTeachers

NAMES = ("law", "code", "verse")


def int8(teacher: str) -> Codec:
    return parse_codec("int8")


def pick(batch: Any, key: Any) -> Any:
    return batch[key]


@pytest.mark.parametrize(
    "given",
    [
        ["code", "law", "verse", "law"],
        ("code", "law", "verse", "law"),
        [1, 0, 2, 0],
        torch.tensor([1, 0, 2, 0]),
        torch.tensor([1, 0, 2, 0], dtype=torch.int8),
        np.array([1, 0, 2, 0]),
        np.array(["code", "law", "verse", "law"]),
    ],
)
def test_teachers_are_named_or_counted(given: Any) -> None:
    owners = Route("domain", NAMES)({"domain": given}, 4, pick)
    assert owners.tolist() == [1, 0, 2, 0]
    assert Route(lambda batch: given, NAMES)({}, 4, pick).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["law", "code", "law", "art"], "sample 3 to 'art', and the teachers are 'law', 'code', 'verse'"),
        ([0, 1, 2, 3], r"sample 3 to 3, and the teachers are .* \(or 0 to 2\)"),
        ([0, 1, 2, -1], "sample 3 to -1"),
        ([0, 1, 2, True], "sample 3 to True"),
        ([0, 1, 2, None], "sample 3 to None"),
        (torch.tensor([0.0, 1.0, 2.0, 0.0]), "sample 0 to 0.0"),
        (torch.tensor([True, False, True, False]), "sample 0 to True"),
        (torch.zeros(4, 1, dtype=torch.int64), r"shape \[4, 1\]: it must be \[4\]"),
        (["law"], "1 entries for 4 samples"),
        (["law"] * 5, "5 entries for 4 samples"),
        ("lawlawla", "gives str: it must give a list"),
        ({"law": 1}, "gives dict: it must give a list"),
        (None, "gives NoneType"),
    ],
)
def test_what_names_no_teacher_is_refused(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Route("domain", NAMES)({"domain": given}, 4, pick)


@pytest.mark.parametrize("route", ["", True, 1.5, ("a", "b"), ["domain"]])
def test_a_route_that_cannot_be_is_refused(route: Any) -> None:
    with pytest.raises(ConfigError, match="use a key, an index, or a function of the batch"):
        Route(route, NAMES)


def test_a_key_that_a_batch_has_not_is_named_as_the_routes() -> None:
    select = TeacherInputSelector("id", NAMES, Route("nokey", NAMES))
    with pytest.raises(InputError, match="route='nokey': the batch has no such entry"):
        select({"id": torch.zeros(2)})


def test_a_route_among_one_teacher_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is one teacher, 'law'"):
        Route("domain", ("law",))


def test_one_set_of_labels_needs_one_codec() -> None:
    with pytest.raises(ConfigError, match="use one codec for all"):
        AskedTeachers.of(NAMES, codec={"law": "topk:4", "code": "dense"}, route="domain")
    assert AskedTeachers.of(NAMES, codec="topk:4", route="domain").codecs.keys() == set(NAMES)


@pytest.mark.parametrize("teacher", ["", [], ["a", "a"], ["a", ""], [1], [None], 3, None])
def test_teachers_that_cannot_be_are_refused(teacher: Any) -> None:
    with pytest.raises(ConfigError, match="use a name, or a sequence of different names"):
        AskedTeachers.of(teacher)


def test_each_sample_is_seen_by_its_teacher_alone() -> None:
    chance = random.Random(1)
    select = TeacherInputSelector(("id", "text"), NAMES, Route("domain", NAMES))
    for samples in (1, 2, 5, 17, 64):
        owners = [chance.choice(NAMES) for _ in range(samples)]
        batch = {
            "id": torch.arange(samples) * 10,
            "text": [f"text {n}" for n in range(samples)],
            "domain": owners,
        }
        seen = select(batch)
        assert seen.samples == samples and not seen.tensors
        for teacher in NAMES:
            part, own = seen.apart[teacher], [n for n in range(samples) if owners[n] == teacher]
            assert part[1] == len(own)
            if own:
                assert part[0]["id"].tolist() == [10 * n for n in own]
                assert part[0]["text"].shape[0] == len(own)
                rows = [own.index(n) if n in own else -1 for n in range(samples)]
                assert part.places.tolist() == rows


def test_samples_that_lie_in_order_are_not_copied() -> None:
    ids = torch.arange(6)
    select = TeacherInputSelector("id", NAMES, Route("domain", NAMES))
    seen = select({"id": ids, "domain": [0, 0, 1, 2, 2, 2]})
    assert [seen.apart[name][0]["id"].tolist() for name in NAMES] == [[0, 1], [2], [3, 4, 5]]
    assert seen.apart["verse"][0]["id"].data_ptr() == ids[3:].data_ptr()


def test_inputs_by_teacher_are_routed_if_all_see_the_same_samples() -> None:
    def select(code: Any) -> TeacherInputSelector:
        inputs = {"law": "id", "code": code, "verse": "id"}
        return TeacherInputSelector(inputs, NAMES, Route("domain", NAMES))

    batch = {"id": torch.arange(3), "domain": ["code", "law", "code"]}
    seen = select(lambda batch: {"x": -batch["id"]})(batch)
    assert seen.apart["code"][0]["x"].tolist() == [0, -2]
    assert seen.apart["law"][0]["id"].tolist() == [1]
    with pytest.raises(InputError, match="teachers see 2 or 3 samples"):
        select(lambda batch: {"x": batch["id"][:2]})(batch)


def test_sequences_are_routed_as_a_whole() -> None:
    ids = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6], [0, 0, 0]])
    select = TeacherInputSelector(Sequences("ids", mask=lambda b: b["ids"] != 0), NAMES, Route("d", NAMES))
    seen = select({"ids": ids, "d": ["law", "code", "law", "law"]})
    assert seen.samples == 4
    assert seen.apart["law"][0]["ids"].tolist() == [1, 2, 4, 5, 6]
    assert seen.apart["law"].places.tolist() == [[0, 1, -1], [-1] * 3, [2, 3, 4], [-1] * 3]
    assert seen.apart["code"].places.tolist() == [[-1] * 3, [0, -1, -1], [-1] * 3, [-1] * 3]
    assert seen.apart["verse"][1] == 0
    with pytest.raises(InputError, match="1 entries for 4 samples"):
        select({"ids": ids, "d": ["law"]})


def top(n: int, k: int = 2, vocabulary: int = 9, temperature: float = 1.0) -> TopKLabels:
    ids = torch.arange(n * k).reshape(n, k)
    return TopKLabels(ids, ids.float(), torch.arange(n).float(), vocabulary, temperature)


def test_labels_of_any_kind_are_put_together_in_the_order_of_the_batch() -> None:
    places = {"law": torch.tensor([-1, 0, -1, 1]), "code": torch.tensor([1, -1, 0, -1])}
    labels = {
        "law": {"logits": top(2), "x": torch.tensor([10, 11])},
        "code": {"x": torch.tensor([20, 21]), "logits": top(2)},
    }
    whole, together = joined(labels, places, int8)
    assert whole["x"][together].tolist() == [21, 10, 20, 11]
    assert whole["logits"].ids[together].tolist() == [[2, 3], [0, 1], [0, 1], [2, 3]]
    assert whole["logits"].vocabulary == 9


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"y": torch.zeros(1, 3)}, r"'law' has outputs \['x'\] and teacher 'code' has \['y'\]"),
        (
            {"x": torch.zeros(1, 4)},
            r"float32\[N, 3\], and that of teacher 'code' \(codec int8\) is float32\[N, 4\]",
        ),
        (
            {"x": torch.zeros(1, 3).half()},
            r"float32\[N, 3\], and that of teacher 'code' \(codec int8\) is float16\[N, 3\]",
        ),
        (
            {"x": top(1)},
            r"float32\[N, 3\], and that of teacher 'code' \(codec int8\) is TopKLabels\(ids=int64\[N, 2\]",
        ),
    ],
)
def test_labels_that_differ_are_refused_with_both_sides(other: dict[str, Any], says: str) -> None:
    places = {"law": torch.tensor([0, -1]), "code": torch.tensor([-1, 0])}
    with pytest.raises(LabelError, match=says):
        joined({"law": {"x": torch.zeros(1, 3)}, "code": other}, places, int8)


def test_vocabularies_and_temperatures_that_differ_are_refused() -> None:
    places = {"law": torch.tensor([0, -1]), "code": torch.tensor([-1, 0])}
    for other in (top(1, vocabulary=10), top(1, temperature=2.0), top(1, k=3)):
        with pytest.raises(LabelError, match="need the same shapes and one codec"):
            joined({"law": {"x": top(1)}, "code": {"x": other}}, places, int8)


def test_a_batch_of_which_nobody_labels_anything_has_a_mask_only() -> None:
    asked = AskedTeachers.of(NAMES, Sequences("ids"), route="d")
    places = {"edldist.places": torch.full((2, 3), -1)}
    labels = Decoding(asked, lambda teacher: pytest.fail("no codec is known"), {}).of({"law": places})
    assert labels["mask"].tolist() == [[False] * 3] * 2 and len(labels) == 1
