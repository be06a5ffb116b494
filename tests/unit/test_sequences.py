"""Sequences without their padding: packed, through a model, and their labels back in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edldist import Sequences
from edldist.errors import (
    CodecError,
    ConfigError,
    ContractError,
    InputError,
    LabelError,
    ModelError,
    WireError,
)
from edldist.labels.codec import parse_codec
from edldist.labels.typed import TopKLabels
from edldist.student.decoding.put_back import put_back
from edldist.student.inputs.sequences import PackedSequences
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes import sequences
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.wire.sequences import ASKED, FIRST, MARKS, WHOLE

TOKENS = torch.tensor([[5, 6, 7, 0], [0, 8, 9, 0], [0, 0, 0, 0], [1, 2, 3, 4]])
REAL = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
COMPLETION = torch.tensor([[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
BATCH = {"ids": TOKENS, "real": REAL, "wanted": COMPLETION.bool()}


def packed(*args: Any, **options: Any) -> PackedSequences:
    view, samples = Sequences(*args, **options)(BATCH, lambda batch, key: batch[key])
    assert samples == 4
    return view


class TestPacking:
    def test_only_tokens_travel(self) -> None:
        view = packed("ids", mask="real")
        assert view.tensors["ids"].tolist() == [5, 6, 7, 8, 9, 1, 2, 3, 4]
        first = FIRST | ASKED
        assert view.tensors[MARKS].tolist() == [first, 2, 2, first, 2, first, 2, 2, 2]
        assert (view.samples, view.lengths, view.asked) == (3, [3, 2, 4], [3, 2, 4])
        assert view.places.tolist() == [[0, 1, 2, -1], [-1, 3, 4, -1], [-1] * 4, [5, 6, 7, 8]]

    def test_sequences_of_which_nothing_is_asked_do_not(self) -> None:
        view = packed("ids", mask="real", asked="wanted")
        assert view.tensors["ids"].tolist() == [5, 6, 7, 8, 9]
        assert view.tensors[MARKS].tolist() == [1, 2, 2, 1, 2]
        assert (view.samples, view.lengths, view.asked) == (2, [3, 2], [2, 1])
        assert view.places.tolist() == [[-1, 0, 1, -1], [-1, -1, 2, -1], [-1] * 4, [-1] * 4]

    def test_a_label_of_the_whole(self) -> None:
        view = packed("ids", mask="real", whole=True)
        assert view.tensors[MARKS].tolist() == [5, 0, 0, 5, 0, 5, 0, 0, 0]
        assert (view.lengths, view.asked, view.places.tolist()) == ([3, 2, 4], [1, 1, 1], [0, 1, -1, 2])

    def test_without_a_mask_all_are_tokens(self) -> None:
        view = packed("ids", asked=lambda batch: batch["wanted"])
        assert view.lengths == [4, 4] and view.asked == [3, 1]

    def test_nothing_asked_of_a_batch_is_nothing_to_see(self) -> None:
        view = packed("ids", mask=lambda batch: torch.zeros_like(batch["real"]))
        assert view.samples == 0 and view.tensors["ids"].shape == (0,) and view.lengths == []

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"tokens": ()}, "use a key"),
            ({"tokens": ("ids", "ids")}, "different ones"),
            ({"tokens": True}, "use a key"),
            ({"tokens": "ids", "mask": 1.5}, r"Sequences\(mask=1.5\)"),
            ({"tokens": "ids", "asked": "wanted", "whole": True}, "leave asked out"),
        ],
    )
    def test_arguments_that_cannot_be_are_refused(self, options: Any, says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            Sequences(**options)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"tokens": "flat"}, r"tokens 'flat' have shape \[4\]"),
            ({"tokens": ("ids", "wide")}, r"tokens 'wide' have shape \[4, 5\]"),
            ({"tokens": "text"}, "'text' of the batch is a str, not a tensor"),
            ({"tokens": "ids", "mask": "flat"}, r"mask has shape \[4\], the tokens \[4, 4\]"),
            (
                {"tokens": "ids", "asked": "ids"},
                "asked holds 5 in sample 0, at position 0: it must be bool.*positions before those",
            ),
            ({"tokens": "ids", "mask": "torn"}, "mask has a hole in sample 1, before position"),
        ],
    )
    def test_batches_that_do_not_fit_are_refused(self, options: Any, says: str) -> None:
        torn = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
        batch = BATCH | {"torn": torn, "flat": torch.ones(4), "wide": torch.ones(4, 5), "text": "x"}
        with pytest.raises(InputError, match=says):
            Sequences(**options)(batch, lambda batch, key: batch[key])


class TestPuttingBack:
    def test_labels_come_back_to_their_positions_and_are_none_elsewhere(self) -> None:
        view = packed("ids", mask="real", asked="wanted")
        rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        labels = put_back({"logits": rows, "index": torch.tensor([7, 8, 9])}, view.places, "t")
        mask = labels["mask"]
        assert torch.equal(mask, BATCH["wanted"] & REAL.bool())
        assert torch.equal(labels["logits"][mask], rows) and labels["logits"][~mask].isnan().all()
        assert labels["index"][mask].tolist() == [7, 8, 9] and (labels["index"][~mask] == 0).all()

    def test_typed_labels_too(self) -> None:
        view = packed("ids", mask="real", asked="wanted")
        top = TopKLabels(torch.ones(3, 2, dtype=torch.int64), torch.zeros(3, 2), torch.zeros(3), 11, 2.0)
        back = put_back({"logits": top}, view.places, "t")["logits"]
        assert back.ids.shape == (4, 4, 2) and back.log_tail.shape == (4, 4)
        assert (back.vocabulary, back.temperature) == (11, 2.0)

    def test_no_labels_at_all(self) -> None:
        labels = put_back({"logits": torch.zeros(0, 3)}, torch.full((2, 4), -1), "t")
        assert labels["logits"].shape == (2, 4, 3) and labels["logits"].isnan().all()
        assert not labels["mask"].any()

    def test_an_output_of_that_name_is_refused(self) -> None:
        with pytest.raises(LabelError, match="teacher 't' has an output 'mask'"):
            put_back({"mask": torch.zeros(3)}, torch.zeros(3, dtype=torch.int64), "t")


class Language(nn.Module):
    """Bidirectional where it gets a mask, so that padding would show."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.table = nn.Parameter(torch.randn(16, 3, generator=generator))
        self.calls: list[list[int]] = []
        self.masked = masked
        if not masked:
            self.forward = self._unmasked  # type: ignore[assignment]

    def _mixed(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.calls.append(list(ids.shape))
        seen = self.table[ids] * mask.unsqueeze(-1)
        return self.table[ids] + seen.sum(1, keepdim=True) / mask.sum(1)[:, None, None]

    def forward(self, ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mixed = self._mixed(ids, attention_mask)
        return {"logits": mixed, "pooled": mixed[:, 0]}

    def _unmasked(self, ids: Tensor) -> dict[str, Tensor]:
        mixed = self._mixed(ids, torch.ones_like(ids))
        return {"logits": mixed, "pooled": mixed[:, 0]}


def teacher(
    monkeypatch: pytest.MonkeyPatch, masked: bool, outputs: tuple[str, ...] = ("logits",)
) -> tuple[Teacher, Language]:
    model = Language(masked)
    monkeypatch.setattr("tests.unit.test_sequences.MODEL", model)
    return Teacher("tests.unit.test_sequences:factory", torch.device("cpu"), outputs=outputs), model


MODEL: Any = None


def factory() -> Any:
    return MODEL


def by_hand(sequence: list[int]) -> Tensor:
    return Language(False)(torch.tensor([sequence]))["logits"][0]


SEQUENCES = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10], [11, 12], [13, 14, 15], [2, 4]]


def rows(asked: Any = lambda at: True) -> dict[str, Tensor]:
    ids, marks = [], []
    for sequence in SEQUENCES:
        ids += sequence
        marks += [(FIRST if at == 0 else 0) | (ASKED if asked(at) else 0) for at in range(len(sequence))]
    return {"ids": torch.tensor(ids), MARKS: torch.tensor(marks, dtype=torch.uint8)}


def label_sequences(runs: Teacher, inputs: dict[str, Tensor], most: int, fixed: bool) -> dict[str, Tensor]:
    tokens = {name: tensor for name, tensor in inputs.items() if name != MARKS}
    return sequences.label_sequences(runs, tokens, inputs[MARKS].numpy(), most, fixed)


class TestModels:
    @pytest.mark.parametrize("masked", [True, False])
    @pytest.mark.parametrize("most", [1, 4, 8, 1000])
    def test_labels_are_those_of_each_sequence_alone(self, monkeypatch, masked: bool, most: int) -> None:
        runs, model = teacher(monkeypatch, masked)
        got = label_sequences(runs, rows(), most, fixed=False)["logits"]
        torch.testing.assert_close(got, torch.cat([by_hand(sequence) for sequence in SEQUENCES]))
        longest = max(map(len, SEQUENCES))
        assert all(count * length <= max(most, longest) for count, length in model.calls)
        if not masked:
            assert len(model.calls) >= len({len(sequence) for sequence in SEQUENCES})
        elif most == 1000:
            assert len(model.calls) < len(SEQUENCES)

    @pytest.mark.parametrize("masked", [True, False])
    def test_only_tokens_that_are_asked_for_are_labelled(self, monkeypatch, masked: bool) -> None:
        runs, _ = teacher(monkeypatch, masked)
        got = label_sequences(runs, rows(lambda at: at in (0, 2)), 8, fixed=False)["logits"]
        wanted = torch.cat(
            [by_hand(sequence)[[at for at in (0, 2) if at < len(sequence)]] for sequence in SEQUENCES]
        )
        torch.testing.assert_close(got, wanted)

    def test_labels_of_whole_sequences_come_in_their_order(self, monkeypatch) -> None:
        runs, _ = teacher(monkeypatch, True, outputs=("pooled",))
        inputs = rows(lambda at: False)
        inputs[MARKS] = torch.where(inputs[MARKS] == FIRST, FIRST | WHOLE, 0).to(torch.uint8)
        got = label_sequences(runs, inputs, 8, fixed=False)["pooled"]
        torch.testing.assert_close(got, torch.stack([by_hand(sequence)[0] for sequence in SEQUENCES]))

    def test_outputs_without_positions_are_no_labels_of_tokens(self, monkeypatch) -> None:
        runs, _ = teacher(monkeypatch, True, outputs=("pooled",))
        with pytest.raises(ContractError, match=r"output 'pooled' .* whole=True"):
            label_sequences(runs, rows(), 8, fixed=False)

    def test_labels_of_tokens_are_none_of_whole_sequences(self, monkeypatch) -> None:
        runs, _ = teacher(monkeypatch, True)
        inputs = rows(lambda at: False)
        inputs[MARKS] = torch.where(inputs[MARKS] == FIRST, FIRST | WHOLE, 0).to(torch.uint8)
        with pytest.raises(ContractError, match="it has labels of tokens.*Leave whole=True out"):
            label_sequences(runs, inputs, 8, fixed=False)

    def test_a_batch_size_meant_in_samples_is_said_to_count_tokens(self, monkeypatch, caplog) -> None:
        runs, _ = teacher(monkeypatch, True)
        one = {"ids": torch.arange(5), MARKS: torch.tensor([3, 2, 2, 2, 2], dtype=torch.uint8)}
        forward = Forward(runs, parse_codec("dense"))
        forward(one, PassTerms(5))
        assert not caplog.messages
        for _ in range(2):
            forward(one, PassTerms(4))
        (said,) = caplog.messages
        assert "5 tokens of sequences came, and batch_size, 4, counts tokens" in said

    def test_a_sequence_beyond_the_context_is_named(self, monkeypatch) -> None:
        runs, model = teacher(monkeypatch, True)
        model.config = type("Config", (), {"max_position_embeddings": 5})()  # type: ignore[assignment]
        with pytest.raises(ContractError, match="context of 5 tokens, and sequence 2 of the task has 6"):
            label_sequences(runs, rows(), 8, fixed=False)

    def test_marks_that_are_none_are_refused(self, monkeypatch) -> None:
        runs, _ = teacher(monkeypatch, True)
        for marks in ([2, 1], [0, 0]):
            inputs = {"ids": torch.tensor([1, 2]), MARKS: torch.tensor(marks, dtype=torch.uint8)}
            with pytest.raises(WireError, match="do not begin with the first of a sample"):
                label_sequences(runs, inputs, 8, fixed=False)

    @pytest.mark.parametrize(
        ("codec", "words"),
        [
            ("topk:2", "'logits': a logit is nan at sequence 2 of the task, position 4 "),
            ("int8", "'logits' has values that are not finite at sequence 2 of the task, position 4 "),
            ("dense", "'logits' has non-finite values in 1 of 7 rows .the first is sequence 2 of the task, "),
        ],
    )
    def test_a_logit_that_is_none_is_named_by_sequence_and_position(
        self, monkeypatch, codec: str, words: str
    ) -> None:
        runs, model = teacher(monkeypatch, False)
        model.table.data[9] = torch.nan  # the fifth token of sequence 2
        forward = Forward(runs, parse_codec(codec))
        model._mixed = lambda ids, mask: model.table[ids]  # type: ignore[method-assign]
        computed = forward(rows(lambda at: at in (0, 4)), PassTerms(100))
        with pytest.raises((ModelError, CodecError), match=words):
            forward.refuse(computed)

    def test_a_whole_sequence_is_named_as_such(self) -> None:
        marks = np.array([FIRST | WHOLE, 0, FIRST | WHOLE], np.uint8)
        assert sequences.in_sequences(marks)([1]) == "sequence 1 of the task"
        assert sequences.of_tokens(marks)([1]) == "sequence 0 of the task, position 1"
        assert sequences.of_tokens(marks)([2, 5]) == "sequence 1 of the task, position 0, entry 5"
