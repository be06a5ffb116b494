"""The key of a sample depends on what its labels depend on, and on nothing else."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import edldist
from edldist.errors import StoreError
from edldist.labels.fingerprint import VocabularyMark
from edldist.store import sample_key
from edldist.store.layout import ITEM_BYTES
from edldist.store.recipe import Recipe
from edldist.store.sample_key import KINDS, check_witness, keys_of_ids, keys_of_inputs
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.inputs.sequences import Sequences
from edldist.wire import texts
from edldist.wire.tensors import DTYPES
from tests.unit.kept_labels import recipe


def _keys(tensors: dict[str, torch.Tensor], lengths: list[int] | None = None) -> list[bytes]:
    """As the student's side has them."""
    samples = len(next(iter(tensors.values()))) if lengths is None else len(lengths)
    inputs = TeacherInputs(tensors, samples, lengths)
    ends = range(samples + 1) if lengths is None else inputs.wanted.ends
    return [key.tobytes() for key in keys_of_inputs(inputs.layout, inputs.cut(0, samples), ends)]


def test_the_dtypes_are_those_of_the_wire():
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == ITEM_BYTES
    assert set(texts.KINDS) == KINDS


@given(
    shape=st.lists(st.integers(0, 5), max_size=2),
    samples=st.integers(1, 9),
    seed=st.integers(0, 99),
    widths=st.sampled_from([1, 7000]),
)
@settings(max_examples=60, deadline=None)
def test_a_sample_has_its_key_wherever_it_stands(shape, samples, seed, widths):
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "x": torch.randn(samples, *shape, generator=generator),
        "y": torch.randint(0, 9, (samples, widths), generator=generator),
    }
    keys = _keys(tensors)
    order = torch.randperm(samples, generator=generator)
    assert _keys({name: tensor[order] for name, tensor in tensors.items()}) == [keys[at] for at in order]
    assert _keys({name: tensor[-1:] for name, tensor in reversed(tensors.items())}) == keys[-1:]
    assert len(set(keys)) == len(
        {tuple(map(tuple, (t[at].flatten().tolist() for t in tensors.values()))) for at in range(samples)}
    )


@pytest.mark.parametrize(
    "other",
    [
        {"x": torch.zeros(1, 4), "y": torch.ones(1)},
        {"x": torch.zeros(1, 2, 2)},
        {"x": torch.zeros(1, 4).int()},
        {"z": torch.zeros(1, 4)},
        {"x": torch.tensor([[0, 0, 0, 1e-30]])},
        {"x": torch.zeros(1, 2), "y": torch.zeros(1, 2)},
    ],
)
def test_whatever_a_teacher_sees_is_in_the_key(other):
    assert _keys(other) != _keys({"x": torch.zeros(1, 4)})


def test_a_sequence_has_its_key_whatever_it_is_packed_with():
    def packed(tokens: torch.Tensor, asked: torch.Tensor) -> list[bytes]:
        batch = {"tokens": tokens, "mask": tokens != 0, "asked": asked}
        view, _ = Sequences("tokens", "mask", "asked")(batch, lambda batch, key: batch[key])
        return _keys(view.tensors, view.lengths)

    tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 0, 0], [2, 6, 5, 0]])
    everything = tokens != 0
    keys = packed(tokens, everything)
    assert len(set(keys)) == 3
    assert packed(tokens[1:2, :2], everything[1:2, :2]) == keys[1:2]
    fewer = everything.clone()
    fewer[0, 0] = False
    assert packed(tokens, fewer)[0] != keys[0], "other labels are asked for"
    assert packed(tokens, fewer)[1:] == keys[1:]


def test_a_text_has_its_key_whatever_the_widest_of_its_batch():
    def keys(*values: str) -> list[bytes]:
        return _keys(dict([texts.pack_texts("text", values)]))

    assert keys("ab", "x" * 3000)[0] == keys("ab")[0]
    assert keys("ab")[0] != keys("ab\0")[0]


LAYOUT = [("x", "float32", (2,)), ("a", "int64", ())]
FRAMES = [np.arange(6, dtype=np.float32).tobytes(), np.arange(3).tobytes()]
TEXTS = b"\x02\0\0\0abxx\0" + b"\x01\0\0\0c\0\0\0\0"


def test_keys_are_those_under_which_labels_lie_in_files():
    """Another one would lose all that was ever kept."""
    first = keys_of_inputs(LAYOUT, FRAMES, range(4))[0]
    assert first.tobytes().hex() == "b913f8b48562706b8d072c36732611713faf9c128d0873d60d44cc4d77f0516b"
    packed = keys_of_inputs(LAYOUT, FRAMES, [0, 1, 3])[1]
    assert packed.tobytes().hex() == "d0cf2e263125b3288e8e0732e68c77b2553e9e902302b6ff3d481817c785e86b"
    text = keys_of_inputs([("t", "str", (9,))], [TEXTS], range(3))[0]
    assert text.tobytes().hex() == "850816757e5b61c880a6459056c4642cb4e65bdaf7f4dfcb9ec652f629841cbb"
    named = keys_of_ids("train", [1, "1"], [5, 6], asked=b"q")[1]
    assert named.tobytes().hex() == "97f443e352e63c731cc66606ab3ec43c14c5ccb9c17ce138ad891079b09779cc"
    below = keys_of_ids("train", [-7])[0]
    assert below.tobytes().hex() == "c3626ecbf38c3277c24cd29108d3875ef72127d67da3664afa7958e166bf54d7"


@pytest.mark.parametrize("most", [0, 15, 16])
def test_a_large_sample_has_its_key_as_a_small_one_has(monkeypatch, most):
    """Small ones are joined first, 16 bytes each here; who keeps labels of both must find them."""
    keys = keys_of_inputs(LAYOUT, FRAMES, range(4))
    monkeypatch.setattr(sample_key, "_JOINED_BYTES", most)
    assert np.array_equal(keys_of_inputs(LAYOUT, FRAMES, range(4)), keys)


def test_no_samples_have_no_keys():
    assert keys_of_inputs(LAYOUT, [b"", b""], range(1)).shape == (0, 32)
    assert keys_of_inputs([("t", "str", (9,))], [b""], range(1)).shape == (0, 32)
    assert keys_of_ids("train", []).shape == (0, 32)


def test_ids_seeds_and_the_data_set_are_in_the_key():
    keys = [
        keys_of_ids("train", [1]),
        keys_of_ids("train", ["1"]),
        keys_of_ids("train", [2]),
        keys_of_ids("test", [1]),
        keys_of_ids("train", [1], [0]),
        keys_of_ids("train", [1], [1]),
        keys_of_ids("train", [1], asked=b"x"),
    ]
    assert len({key.tobytes() for key in keys}) == len(keys)
    assert np.array_equal(keys_of_ids("train", [7, 1], [3, 0])[1], keys[4][0])
    assert np.array_equal(keys_of_ids("train", np.arange(3))[1], keys[0][0])


@pytest.mark.parametrize("bad", [1.5, None, True, b"x"])
def test_what_is_no_id_is_refused(bad):
    with pytest.raises(StoreError, match="is no id of a sample"):
        keys_of_ids("train", [bad])
    with pytest.raises(StoreError, match="1 augmentation seeds for 2 ids"):
        keys_of_ids("train", [1, 2], [0])


def test_the_seed_of_an_augmentation_is_the_same_in_every_process():
    assert edldist.augmentation_seed(0, "img-7") == 4636870506867295297
    seeds = {
        edldist.augmentation_seed(seed, id, variant)
        for seed in (0, 1)
        for id in (1, "1")
        for variant in (0, 1)
    }
    assert len(seeds) == 8
    torch.Generator().manual_seed(max(seeds))


def test_an_input_that_changed_under_its_id_is_an_error_that_says_what_to_do():
    kept = keys_of_ids("", [1, 2, 3])
    check_witness(kept, kept.copy(), ["a", "b", "c"])
    with pytest.raises(StoreError, match=r"sample 'b' is not shown as it was.*augmentation_seed"):
        check_witness(kept, keys_of_ids("", [1, 7, 3]), ["a", "b", "c"])


def test_a_recipe_comes_back_from_its_text_and_its_digest_from_what_it_says():
    made = recipe(version="7", preprocessing="crop 224")
    assert Recipe.decode(made.encode()) == made
    assert Recipe.decode(made.encode()).digest == made.digest
    marked = VocabularyMark(size=10, digest="d")

    others = [
        recipe(version="7"),
        recipe(version="8", preprocessing="crop 224"),
        recipe(weights="x", version="7", preprocessing="crop 224"),
        recipe(version="7", preprocessing="crop 224", data="train"),
        msgspec.structs.replace(
            made, fingerprint=msgspec.structs.replace(made.fingerprint, vocabulary=marked)
        ),
    ]
    assert len({each.digest for each in [made, *others]}) == 6
    seen = msgspec.structs.replace(
        made, fingerprint=msgspec.structs.replace(made.fingerprint, outputs=["logits"])
    )
    assert seen.digest == made.digest, "a worker that has shown its outputs is the same teacher"
    assert made.digest == "c31bcebff981bcbeae1a8a0715804aea6ff635a5b42fad3645d79dd402c00430"


def test_a_recipe_by_which_nobody_can_tell_the_weights_is_refused():
    for told in (recipe(), recipe(weights="", version="1"), recipe(version="1")):
        assert told.check() is told
    with pytest.raises(StoreError, match="labels of models:teacher cannot be kept.*Name a version"):
        recipe(weights="").check()


def test_labels_of_another_recipe_that_lie_in_a_folder_are_refused():
    made = recipe(weights="x")
    made.check_same(recipe(weights="x"), "/kept")
    with pytest.raises(StoreError, match="/kept holds .* another teacher: weights x instead of c0ffee"):
        made.check_same(recipe(), "/kept")


def test_recipes_differ_in_words():
    assert recipe(preprocessing="crop").differences(recipe(weights="x", codec="dense")) == [
        "weights c0ffee instead of x",
        "codec topk:4 instead of dense",
        "preprocessing 'crop' instead of ''",
    ]
    with pytest.raises(StoreError, match="no recipe of labels"):
        Recipe.decode(b'{"fingerprint": 3}')
