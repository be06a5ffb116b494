"""Which token has which id: read, compared, and labels brought from one vocabulary to another."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edldist import losses
from edldist.errors import ConfigError, InputError, WireError
from edldist.labels.codec import parse_codec
from edldist.labels.typed import GatheredLabels, HiddenLabels
from edldist.vocabulary import IdMap, Tokens, Vocabulary
from edldist.vocabulary.sources import tokens_of

WORDS = ["<unk>", "a", "b", "the", "\n", "Ġé"]

texts = st.lists(st.one_of(st.none(), st.text(max_size=6)), min_size=1, max_size=30)


class TestTokens:
    @given(texts)
    def test_a_list_travels_and_is_the_same(self, some: list[str | None]) -> None:
        tokens = Tokens(some)
        assert Tokens.unpack(tokens.packed, tokens.mark).texts == tokens.texts

    @given(texts, texts)
    def test_marks_are_the_same_for_the_same_tokens_alone(self, some, others) -> None:
        assert (Tokens(some).mark == Tokens(others).mark) == (some == others)
        assert (Tokens(some).differences(Tokens(others)) == "") == (some == others)

    def test_differences_name_the_first_tokens_that_differ(self) -> None:
        ours = Tokens(WORDS)
        words = ours.differences(Tokens(["<unk>", "b", "a", "the"]))
        assert "id 1 is 'a' here and 'b' there, id 2 is 'b' here and 'a' there" in words
        assert "4 tokens are in both, 2 of them under one id" in words
        assert ours.differences(Tokens([*WORDS, "z"])) == (
            "the first 6 are the same, and the teacher has 'z' ... behind them"
        )
        assert "this student has 'Ġé' ..." in ours.differences(Tokens(WORDS[:5]))

    @pytest.mark.parametrize(
        "packed", [b"", b"nonsense", Tokens(["x"]).packed[:-3], Tokens(["other"]).packed, b"x" * (17 << 20)]
    )
    def test_what_came_and_is_no_such_list_is_refused(self, packed: bytes) -> None:
        with pytest.raises(WireError, match="list of"):
            Tokens.unpack(packed, Tokens(["x"]).mark)

    def test_every_source_of_a_tokenizer_has_the_same_mark(self, tmp_path) -> None:
        tokenizers = pytest.importorskip("tokenizers")
        ids = {word: number for number, word in enumerate(WORDS)}
        tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
        tokenizer.add_special_tokens(["<end>"])
        tokenizer.save(str(tmp_path / "tokenizer.json"))
        mark = Tokens([*WORDS, "<end>"]).mark
        for source in (tokenizer, tmp_path, str(tmp_path / "tokenizer.json"), [*WORDS, "<end>"]):
            assert tokens_of(source).mark == mark
        (tmp_path / "old").mkdir()
        (tmp_path / "old" / "vocab.json").write_text(json.dumps(ids))
        (tmp_path / "old" / "added_tokens.json").write_text('{"<end>": 6}')
        assert tokens_of(tmp_path / "old").mark == mark
        unigram = {"model": {"vocab": [[word, -1.0] for word in WORDS]}, "added_tokens": None}
        (tmp_path / "old" / "tokenizer.json").write_text(json.dumps(unigram))
        assert tokens_of(tmp_path / "old").mark == Tokens(WORDS).mark
        (tmp_path / "vocab.txt").write_text("a\nb\n")
        assert tokens_of(tmp_path / "vocab.txt").texts == ["a", "b"]

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            ({}, "it is empty"),
            ({"a": 0, "b": 0}, "'a' and 'b' of a vocabulary both have id 0"),
            ({"a": -1}, "token 'a' has -1"),
            ([3], "a token of a vocabulary is 3"),
            ([], "from 1 to"),
            (7, r"vocabulary 7 \(int\): use a tokenizer"),
            ("no/such/folder", "no such file or folder"),
        ],
    )
    def test_what_is_no_vocabulary_is_refused(self, source, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            tokens_of(source)

    def test_a_file_that_is_none_is_refused(self, tmp_path) -> None:
        for text in ("{", '{"model": {}}', '{"model": {"vocab": 3}}', '["a"]'):
            (tmp_path / "tokenizer.json").write_text(text)
            with pytest.raises(ConfigError, match=r"vocabulary .*tokenizer.json cannot be read"):
                tokens_of(tmp_path)

    def test_bytes_and_halves_of_pairs_are_texts(self) -> None:
        tokens = Tokens.of_ids({b"a": 0, b"\xff": 2, "\ud800": 3})
        assert tokens.texts == ["a", None, "\\xff", "\\xed\\xa0\\x80"]
        assert Tokens.unpack(tokens.packed, tokens.mark).texts == tokens.texts


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 5}, "an entry for each of the 6 tokens"),
        ({"ids": "align"}, "use 'match'"),
        ({"ids": [0, 0]}, "the teacher's ids 0 and 1 both become 0"),
        ({"ids": [0, 6]}, "the teacher's id 1 becomes 6, and the student has ids 0 to 5"),
        ({"ids": [-2]}, "id 0 becomes -2"),
        ({"ids": [-1, -1]}, "no id of the teacher's is one of the student's"),
        ({"ids": [0.5]}, "one row of integers"),
        ({"ids": []}, "one row of integers"),
    ],
)
def test_a_student_that_says_what_cannot_be_is_told(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        Vocabulary(WORDS, **options)


# --- labels in other ids --------------------------------------------------------------------------------


@st.composite
def maps(draw) -> tuple[IdMap, list[int], int, int]:
    """A map, its list, the teacher's entries and the student's."""
    teacher, student = draw(st.integers(2, 9)), draw(st.integers(2, 9))
    places = draw(st.permutations(range(student)))
    ids = [places[i] if i < student and draw(st.booleans()) else -1 for i in range(teacher)]
    if all(i < 0 for i in ids):
        ids[0] = places[0]
    return IdMap(ids, student), ids, teacher + draw(st.integers(0, 2)), student


def probabilities(seed: int, entries: int, rows: int = 3) -> Tensor:
    return torch.randn(rows, entries, generator=torch.Generator().manual_seed(seed)) * 2


def by_hand(p: Tensor, ids: list[int], size: int) -> tuple[Tensor, Tensor]:
    """Probabilities [rows, size] of the student's entries, and what has no place, [rows]."""
    mapped, lost = torch.zeros(len(p), size), torch.zeros(len(p))
    for teacher in range(p.shape[1]):
        student = ids[teacher] if teacher < len(ids) else -1
        if student < 0:
            lost += p[:, teacher]
        else:
            mapped[:, student] += p[:, teacher]
    return mapped, lost


def packed(codec: str, logits: Tensor):
    made = parse_codec(codec)
    return made.decode(made.encode({"logits": logits}, fixed=True))["logits"]


@settings(deadline=None, max_examples=15)
@given(maps(), st.integers(0, 1000), st.data())
def test_no_probability_of_topk_labels_is_lost_and_what_is_kept_keeps_its_own(case, seed, data) -> None:
    mapping, ids, entries, size = case
    kept = data.draw(st.integers(1, entries))
    labels = packed(f"topk:{kept}", probabilities(seed, entries))
    got, lost = mapping("logits", labels)
    if got is labels:
        assert ids == list(range(len(ids))) and (entries == size or entries < len(ids))
        return
    told = torch.zeros(3, entries).scatter(1, labels.ids, labels.log_probs.exp())
    wanted, without = by_hand(told, ids, size)
    mapped = torch.zeros(3, size).scatter_add(1, got.ids, got.log_probs.exp())
    rest = labels.log_tail.exp() + without
    whole = ((wanted > 0).sum(-1) == size).unsqueeze(-1)
    torch.testing.assert_close(mapped, torch.where(whole, wanted / wanted.sum(-1, keepdim=True), wanted))
    torch.testing.assert_close(got.log_tail.exp(), rest * ~whole.squeeze(-1))
    torch.testing.assert_close(lost, torch.where(whole.squeeze(-1), rest, without))
    assert got.vocabulary == size and (got.ids < size).all()
    assert (got.log_probs.exp().diff(dim=-1) <= 0).all(), "what is left out stands last"
    loss = losses.forward_kl(torch.randn(3, size), got)
    assert loss.isfinite()


@settings(deadline=None, max_examples=15)
@given(maps(), st.integers(0, 1000), st.sampled_from(["rs:5", "head+rs:2:4"]))
def test_drawn_labels_keep_their_weights_and_what_has_no_place_has_none(case, seed, codec) -> None:
    mapping, ids, entries, size = case
    labels = packed(codec, probabilities(seed, entries))
    got, lost = mapping("logits", labels)
    if got is labels:
        return
    wanted, without = by_hand(labels.dense(), ids, size)
    torch.testing.assert_close(got.dense(), wanted)
    torch.testing.assert_close(lost, without)


def test_the_mean_over_draws_is_the_cross_entropy_over_what_both_have() -> None:
    logits = probabilities(3, 6, rows=1).expand(4000, -1)
    student = probabilities(4, 4, rows=1).double()
    ids = [2, -1, 0, 1, -1, 3]
    got, _ = IdMap(ids, 4)(
        "logits", parse_codec("rs:8").decode(parse_codec("rs:8").encode({"logits": logits.clone()}))["logits"]
    )
    each = losses.forward_kl(student.expand(4000, -1), got, reduction="none")
    p, _ = by_hand(logits[:1].softmax(-1), ids, 4)
    wanted = -(p.double() * student.log_softmax(-1)).sum()
    assert abs(each.mean() - wanted) < 4 * each.std() / math.sqrt(4000)


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(5)), st.integers(0, 3), st.integers(0, 1000))
def test_logits_keep_their_softmax_over_the_tokens_and_padding_is_cut(order, padding, seed) -> None:
    logits = probabilities(seed, 5 + padding)
    got, lost = IdMap(list(order), 7)("logits", logits)
    wanted = torch.zeros(3, 7)
    wanted[:, list(order)] = logits[:, :5].softmax(-1)
    torch.testing.assert_close(got.softmax(-1), wanted)
    if padding:
        torch.testing.assert_close(lost, logits.softmax(-1)[:, 5:].sum(-1))
    else:
        assert lost is None
    unmeasured = IdMap(list(order), 7)("logits", logits, measured=False)
    assert unmeasured.lost is None and torch.equal(unmeasured.labels, got)


def test_vocabularies_that_are_padded_otherwise_are_cut_and_filled_up() -> None:
    logits = probabilities(1, 8)
    for size in (5, 6, 8, 11):
        got, _ = IdMap.same(5, size)("logits", logits)
        assert got.shape[-1] == size
        assert torch.equal(got[:, :5], logits[:, :5])
        assert size == 8 or got[:, 5:].isneginf().all()
    assert IdMap.same(5, 8)("logits", logits).labels is logits, "padded alike, it fits as it is"
    with pytest.raises(ConfigError, match="has 4 entries for a vocabulary of 5 tokens"):
        IdMap.same(5, 4)


def test_logits_without_a_token_are_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="lacks 1 of the teacher's tokens: a softmax .* Take codec topk"):
        IdMap([0, -1, 1], 2)("logits", probabilities(1, 3))
    with pytest.raises(ConfigError, match="logits of 2 entries, and the id map is of 3"):
        IdMap([1, 0, 2], 3)("logits", probabilities(1, 2))


def test_what_is_asked_for_is_in_the_teacher_s_ids_and_hidden_states_have_none() -> None:
    gathered = GatheredLabels(torch.zeros(2, 1), torch.zeros(2))
    assert IdMap([1, 0], 2)("logits", gathered) == (gathered, None)
    hidden = HiddenLabels(torch.zeros(2, 3, dtype=torch.bfloat16), "digest")
    assert IdMap.same(2, 4)("hidden", hidden).labels is hidden
    with pytest.raises(ConfigError, match="the teacher's head gives the teacher's ids"):
        IdMap([1, 0], 2)("hidden", hidden)


def test_tokens_match_by_their_texts() -> None:
    teacher, student = Tokens(["<s>", "b", "a", None, "c", "a"]), Tokens(["a", "b", "d"])
    mapping = IdMap.of_tokens(teacher, student, 4)
    assert mapping.tokens_missing and mapping.covers == 6
    assert mapping.teacher_ids(torch.tensor([[0, 1]])).tolist() == [[2, 1]]
    for wrong in (2, 3, -1, 4):
        with pytest.raises(InputError, match=rf"the student's id {wrong} at \[0, 1\] is no token"):
            mapping.teacher_ids(torch.tensor([[0, wrong]]))


@settings(deadline=None, max_examples=15)
@given(maps())
def test_ids_go_there_and_back(case) -> None:
    mapping, ids, _, _ = case
    for teacher, student in enumerate(ids):
        if student >= 0:
            assert mapping.teacher_ids(torch.tensor([student])).tolist() == [teacher]
