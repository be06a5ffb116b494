"""Ids that a model does not have, and sequences that it cannot take."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edldist.errors import ContractError
from edldist.labels.codec import parse_codec
from edldist.labels.places import in_samples
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.model.token_ids import context_of, vocabulary_of
from edldist.teacher.passes.forward import Forward, PassTerms
from edldist.wire.sequences import ASKED, FIRST, MARKS

CPU = torch.device("cpu")


class Tokens(nn.Module):
    """A language model of 10 tokens, which says so as transformers' do if ``says``."""

    def __init__(self, says: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.calls = 0
        if says:
            self.get_input_embeddings = lambda: self.table

    def forward(self, input_ids: Tensor) -> Tensor:
        self.calls += 1
        return self.table(input_ids)


def telling() -> nn.Module:
    return Tokens()


def silent() -> nn.Module:
    return Tokens(says=False)


def packed(*sequences: list[int]) -> dict[str, Tensor]:
    marks = [ASKED | (FIRST if at == 0 else 0) for each in sequences for at in range(len(each))]
    tokens = [token for each in sequences for token in each]
    return {"input_ids": torch.tensor(tokens), MARKS: torch.tensor(marks, dtype=torch.uint8)}


@pytest.mark.parametrize("wrong", [10, -100, 1 << 40])
def test_an_id_that_the_model_does_not_have_is_named_before_the_model_sees_it(wrong):
    teacher = Teacher("tests.unit.test_token_ids:telling", CPU)
    forward = Forward(teacher, parse_codec("dense"))
    words = f"input_ids: {wrong} at sequence 1 of the task, position 2 is no token of model .*:telling: its "
    with pytest.raises(ContractError, match=words + "embedding has 10 entries, for ids from 0 to 9"):
        forward.vet([packed([1, 2], [3, 4, wrong])])
    with pytest.raises(ContractError, match=f"input_ids: {wrong} at sample 3 of the task, position 1 "):
        forward.vet([{"input_ids": torch.ones(2, 2)}, {"input_ids": torch.tensor([[1, 2], [3, wrong]])}])
    with pytest.raises(ContractError, match=f"input_ids: {wrong} at sample 0 of the task, position 0 "):
        forward.vet([{"0": torch.tensor([[wrong]])}])  # by position
    forward.vet([packed([0, 9]), {"input_ids": torch.tensor([[0, 9]])}, {"pixels": torch.ones(1, 3)}])
    assert teacher.model.calls == 0


def test_a_model_that_says_nothing_of_its_vocabulary_has_it_looked_up_once_it_has_failed():
    forward = Forward(Teacher("tests.unit.test_token_ids:silent", CPU), parse_codec("dense"))
    bad = packed([1, 2], [3, 4, 17])
    forward.vet([bad])
    words = "input_ids: 17 at sequence 1 of the task, position 2 is no token .* its largest embedding has 10"
    with pytest.raises(ContractError, match=words):
        forward(bad, PassTerms())
    with pytest.raises(ContractError, match="17 at sample 0 of the task, position 0 is no token"):
        forward({"input_ids": torch.tensor([[17, 1]])}, PassTerms())


def test_what_is_no_language_model_says_nothing_of_either():
    assert vocabulary_of(nn.Linear(2, 2)) is None and context_of(nn.Linear(2, 2)) is None
    assert vocabulary_of(lambda x: x) is None and context_of(lambda x: x) is None


@pytest.mark.parametrize(("padding", "most"), [(None, 18), (0, 17), (1, 16)])
def test_positions_that_are_counted_from_behind_padding_s_leave_a_shorter_context(padding, most):
    model = nn.Module()
    model.position_embeddings = nn.Embedding(18, 2, padding_idx=padding)
    model.config = type("Config", (), {"max_position_embeddings": 18})()
    assert context_of(model) == most


def test_a_sample_is_named_by_its_number_and_position():
    assert in_samples([3]) == "sample 3 of the task"
    assert in_samples([3, 7]) == "sample 3 of the task, position 7"
    assert in_samples([3, 7, 1]) == "sample 3 of the task, position (7, 1)"
