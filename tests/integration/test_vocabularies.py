"""Teachers and students of one vocabulary, or of two: refused in words, or translated."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

import edldist
from edldist import losses
from edldist.errors import ConfigError, IncompatibleError, UnsuitableTeacherError
from edldist.student.service import unsuited
from edldist.vocabulary import IdMap, Tokens, align

pytestmark = pytest.mark.timeout(240)

WORDS = "abcdef"


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(unsuited, "PATIENCE_S", 0.2)


def batches(count: int = 3) -> list[dict[str, Tensor]]:
    ids = torch.arange(12).reshape(3, 4) % 6
    return [{"input_ids": ids, "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])}] * count


SEQUENCES = edldist.Sequences("input_ids", mask="mask")


def speaks(job, words: str = WORDS, padding: int = 0, **options):
    return job.teacher("Speaks", model_args={"words": words, "padding": padding}, **options)


def labels_of(job, inputs=SEQUENCES, **options) -> list:
    loader = job.loader(batches(), inputs, **options)
    return [labels for _, labels in loader]


def test_a_student_of_the_same_vocabulary_gets_labels_as_ever(memory_job):
    speaks(memory_job)
    for labels in labels_of(memory_job, vocabulary=list(WORDS)):
        assert labels["logits"].shape == (3, 4, 6)


def test_a_student_of_another_vocabulary_is_told_sizes_and_the_first_tokens_that_differ(job, impatient):
    speaks(job)
    with pytest.raises(UnsuitableTeacherError) as caught:
        labels_of(job, vocabulary=list("abxdefg"))
    words = str(caught.value)
    assert (
        "it has a vocabulary of 6 tokens, and this student another one of 7: id 2 is 'x' here and 'c' there"
    )
    assert "a vocabulary of 6 tokens, and this student another one of 7: id 2 is 'x' here and 'c' t" in words
    assert "5 tokens are in both, 5 of them under one id" in words and "ids='match'" in words
    assert job.errors == [], "the worker stays for others"
    assert len(labels_of(job, vocabulary={"teacher": list(WORDS)})) == 3


def test_a_worker_that_does_not_say_is_refused_by_a_student_that_does(memory_job, impatient):
    memory_job.teacher("scores")
    with pytest.raises(UnsuitableTeacherError, match="does not say what .* Start it with --vo"):
        labels_of(memory_job, vocabulary=list(WORDS))


def test_a_worker_with_another_tokenizer_is_refused_by_its_group_and_ends(memory_job):
    speaks(memory_job)
    loader = memory_job.loader(batches(100), SEQUENCES, vocabulary=list(WORDS))
    steps = iter(loader)
    next(steps)
    other = speaks(memory_job, "abcdeg")
    pause = threading.Event()
    for _ in range(4000):
        if memory_job.errors:
            break
        pause.wait(0.005)
    (error,) = memory_job.errors
    memory_job.errors.clear()
    assert isinstance(error, IncompatibleError)
    assert "vocabulary 6 tokens (" in str(error) and ") instead of 6 tokens (" in str(error)
    assert sum(1 for _ in steps) == 99 and not other.service._ledger.tasks


@pytest.mark.parametrize("codec", ["dense", "topk:4", "rs:6"])
def test_a_padded_teacher_is_cut_and_what_it_loses_is_counted(memory_job, codec, caplog):
    speaks(memory_job, padding=2, codec=codec)
    loader = memory_job.loader(batches(), SEQUENCES, vocabulary=edldist.Vocabulary(list(WORDS), size=9))
    student = torch.randn(3, 4, 9, requires_grad=True)
    for _, labels in loader:
        loss = losses.forward_kl(student, labels["logits"], mask=labels["mask"])
        loss.backward()
        assert loss.isfinite() and student.grad.isfinite().all()
    assert 0.01 < loader.stats()["unmapped"] < 0.5
    assert "teacher 'teacher' gives" in caplog.text and "does not have" in caplog.text


def test_labels_of_another_order_of_tokens_are_translated(memory_job):
    speaks(memory_job, "fedcba", codec="topk:3")
    to_teacher = IdMap.of_tokens(Tokens(list("fedcba")), Tokens(list(WORDS)), 6)
    given = [
        batch | {"ours": batch["input_ids"], "input_ids": to_teacher.teacher_ids(batch["input_ids"])}
        for batch in batches()
    ]
    loader = memory_job.loader(given, SEQUENCES, vocabulary=edldist.Vocabulary(list(WORDS), ids="match"))
    for batch, labels in loader:
        told, mask = labels["logits"], labels["mask"]
        # The most probable token is the one that was read, in the student's ids.
        assert torch.equal(told.ids[..., 0][mask], batch["ours"][mask])
        assert told.vocabulary == 6 and told.log_probs[~mask].isnan().all()
    assert loader.stats()["unmapped"] == 0.0


def test_tokens_that_the_student_lacks_are_in_the_rest_and_logits_are_refused(memory_job):
    speaks(memory_job, "abcdefgh", codec="topk:8")
    wanted = edldist.Vocabulary(list(WORDS), ids=[0, 1, 2, -1, 4, 5, -1, -1])
    for labels in labels_of(memory_job, vocabulary=wanted):
        told, mask = labels["logits"], labels["mask"]
        whole = torch.cat([told.log_probs, told.log_tail.unsqueeze(-1)], -1).logsumexp(-1)
        torch.testing.assert_close(whole[mask], torch.zeros(int(mask.sum())), atol=1e-5, rtol=0)
        assert (told.log_tail[mask] > -4).all()
    speaks(memory_job, "abcdefgh", name="dense")
    with pytest.raises(ConfigError, match="lacks 3 of the teacher's tokens"):
        labels_of(memory_job, teacher="dense", vocabulary=wanted)


def test_each_of_two_teachers_has_a_vocabulary_of_its_own(memory_job):
    speaks(memory_job, WORDS, name="one", codec="topk:2")
    speaks(memory_job, "fedcba", name="other", codec="topk:2")
    given = [batch | {"theirs": 5 - batch["input_ids"]} for batch in batches()]
    inputs = {"one": SEQUENCES, "other": lambda batch: {"input_ids": batch["theirs"]}}
    loader = memory_job.loader(
        given,
        inputs,
        teacher=["one", "other"],
        vocabulary={"one": list(WORDS), "other": edldist.Vocabulary(list(WORDS), ids="match")},
    )
    for batch, labels in loader:
        mask = labels["one/mask"]
        for name in ("one", "other"):
            assert torch.equal(labels[f"{name}/logits"].ids[..., 0][mask], batch["input_ids"][mask])


@pytest.mark.parametrize("wrong", [{"nobody": list(WORDS)}, 3])
def test_what_is_no_vocabulary_is_refused_where_the_loader_is_made(memory_job, wrong):
    with pytest.raises(ConfigError, match="vocabulary"):
        memory_job.loader(batches(), SEQUENCES, vocabulary=wrong)


def tokenizer_of(text: str, size: int):
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text] * 4, trainer)
    return tokenizer


TEXTS = ["the cat sat on the mat", "a naïve cat sat there", "the mat"]


def encoded(tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, offsets and mask of the texts, each behind a <s>."""
    rows = [tokenizer.encode(text) for text in TEXTS]
    longest = 1 + max(len(row.ids) for row in rows)
    begin = tokenizer.token_to_id("<s>")
    ids, offsets, mask = torch.zeros(3, longest, dtype=torch.int64), torch.zeros(3, longest, 2), []
    for number, row in enumerate(rows):
        ids[number, : 1 + len(row.ids)] = torch.tensor([begin, *row.ids])
        offsets[number, 1 : 1 + len(row.ids)] = torch.tensor(row.offsets)
        mask.append([at <= len(row.ids) for at in range(longest)])
    return ids, offsets.to(torch.int64), torch.tensor(mask)


def test_a_student_learns_from_teachers_that_cut_text_otherwise(memory_job, tmp_path, impatient):
    """Two workers of one group whose tokenizer the student has not, and losses over what both have read."""
    theirs, ours = tokenizer_of(" ".join(TEXTS), 300), tokenizer_of("mat cat hat", 264)
    (tmp_path / "tok").mkdir()
    theirs.save(str(tmp_path / "tok" / "tokenizer.json"))
    size = theirs.get_vocab_size()
    for codec, name in (("topk:16", "shapes"), ("gather", "spans")):
        for _ in range(2):
            memory_job.teacher(
                "scores",
                name=name,
                codec=codec,
                model_args={"vocabulary": size},
                vocabulary=str(tmp_path / "tok"),
            )
    (ids, offsets, real), (their_ids, their_offsets, their_real) = encoded(ours), encoded(theirs)
    found = align(offsets, their_offsets)
    assert 0 < found.spans < int(their_real.sum()) < int(real.sum())
    batch = {"ids": their_ids, "real": their_real}
    batch["gather_ids"] = torch.nn.functional.pad(their_ids[:, 1:], (0, 1)).unsqueeze(-1)
    inputs = {
        "shapes": edldist.Sequences("ids", mask="real"),
        "spans": edldist.Sequences(("ids", "gather_ids"), mask="real"),
    }
    with pytest.raises(UnsuitableTeacherError, match=f"of {size} tokens, and this student another"):
        loader = memory_job.loader([batch], inputs, teacher=["shapes", "spans"], vocabulary=ours)
        next(iter(loader))
    loader = memory_job.loader([batch] * 3, inputs, teacher=["shapes", "spans"], vocabulary=theirs)
    student = torch.zeros(*ids.shape, ours.get_vocab_size(), requires_grad=True)
    for _, labels in loader:
        told = {"logits": labels["shapes/logits"], "mask": labels["shapes/mask"]}
        brought = found.bring(told)
        shape = losses.uld(student, brought["logits"], mask=brought["mask"])
        text = losses.span_likelihood(
            student, ids, labels["spans/logits"], found.student_spans, found.teacher_spans, found.spans
        )
        (shape + text).backward()
        assert shape > 0 and text > 0 and student.grad.isfinite().all() and student.grad.any()
    assert int(brought["mask"].sum()) == int(found.mask.sum())
