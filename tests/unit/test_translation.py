"""A worker's vocabulary, as a student meets it that says its own."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import ConfigError
from edldist.labels.typed import TopKLabels
from edldist.student.teachers.translation import Translation
from edldist.vocabulary import Tokens, Vocabulary
from edldist.vocabulary.wanted import vocabularies_of
from edldist.wire.messages import Refused, TokensTold, TokensWanted, Welcome
from tests.greetings import fingerprint
from tests.unit.party import Party, Worker

OURS, THEIRS = Tokens(list("abc")), Tokens(list("cbad"))


def translation(**options) -> Translation:
    return Translation("t", Vocabulary(list("abc"), **options), lambda share: None)


def wanting(party, **options) -> Party:
    return party(translations={"teacher": translation(**options)})


def greet(job: Party, tokens: Tokens | None, name: str = "w") -> Worker:
    mark = None if tokens is None else tokens.mark
    return job.worker(name, fingerprint=fingerprint(vocabulary=mark))


def told(worker: Worker, tokens: Tokens, *frames: bytes) -> list:
    worker.say(TokensTold(mark=tokens.mark), *(frames or (tokens.packed,)))
    return [message for message in worker.hear() if isinstance(message, (Welcome, Refused, TokensWanted))]


def test_a_worker_of_the_same_vocabulary_is_taken_at_once(party) -> None:
    (welcome,) = greet(wanting(party), OURS).greeted
    assert isinstance(welcome, Welcome)


def test_one_of_another_is_asked_for_its_tokens_and_refused_in_words(party) -> None:
    job = wanting(party)
    worker = greet(job, THEIRS)
    assert worker.greeted == [TokensWanted()] and job.service.teachers() == 0
    (refused,) = told(worker, THEIRS)
    assert isinstance(refused, Refused) and not refused.incompatible
    assert "a vocabulary of 4 tokens, and this student another one of 3: id 0 is 'a' here" in refused.reason
    (refused,) = greet(job, THEIRS, "second").greeted
    assert "id 0 is 'a' here" in refused.reason, "it is known now"


def test_a_fleet_of_another_vocabulary_costs_one_comparison(party, monkeypatch) -> None:
    compared: list[Tokens] = []
    differences = Tokens.differences
    monkeypatch.setattr(Tokens, "differences", lambda *both: compared.append(both[1]) or differences(*both))
    job = wanting(party)
    workers = [greet(job, THEIRS, f"w-{number}") for number in range(5)]
    for worker in workers:
        (refused,) = told(worker, THEIRS)
        assert "id 0 is 'a' here" in refused.reason
    assert len(compared) == 1


def test_one_that_can_be_matched_is_taken_once_it_has_told(party) -> None:
    job = wanting(party, ids="match")
    worker = greet(job, THEIRS)
    (welcome,) = told(worker, THEIRS)
    assert isinstance(welcome, Welcome) and job.service.teachers() == 1
    (refused,) = greet(job, OURS, "other").greeted
    assert refused.incompatible and "vocabulary 3 tokens" in refused.reason, "it is unlike its group"


def test_one_that_has_nothing_in_common_is_refused(party) -> None:
    worker = greet(wanting(party, ids="match"), Tokens(["x"]))
    (refused,) = told(worker, Tokens(["x"]))
    assert "no id of the teacher's is one of the student's" in refused.reason


@pytest.mark.parametrize("frame", [b"", b"nonsense", OURS.packed])
def test_tokens_that_are_none_are_forgotten_and_it_may_greet_anew(party, frame, caplog) -> None:
    job = wanting(party)
    worker = greet(job, THEIRS)
    assert told(worker, THEIRS, frame) == []
    assert "teacher 't': a list of" in caplog.text
    worker.greet(fingerprint=fingerprint(vocabulary=THEIRS.mark))
    assert worker.greeted == [TokensWanted()]


def test_tokens_that_nobody_asked_for_say_nothing(party) -> None:
    job = wanting(party)
    worker = greet(job, OURS)
    assert told(worker, THEIRS) == [] and job.service.teachers() == 1


def test_an_explicit_map_needs_no_tokens_and_none_at_all_does_not_do() -> None:
    explicit = translation(ids=[2, 1, 0, -1])
    assert not explicit.must_ask(THEIRS.mark) and explicit.objection(None) is None
    assert "does not say what its vocabulary is" in str(translation().objection(None))
    assert not translation().must_ask(None) and translation().must_ask(THEIRS.mark)


def test_labels_are_translated_and_what_has_no_place_is_measured_now_and_then() -> None:
    shares: list[float] = []
    made = Translation("t", Vocabulary(list("abc"), ids=[2, 1, 0, -1]), shares.append)
    made.taken(None)
    probs = torch.tensor([[0.5, 0.25], [0.125, 0.125]])
    labels = TopKLabels(torch.tensor([[0, 3], [3, 2]]), probs.log(), (1 - probs.sum(-1)).log(), 4)
    for _ in range(101):
        got = made({"logits": labels, "features": probs})
    assert shares == pytest.approx([(0.25 + 0.125) / 2] * 2)
    assert got["logits"].ids[:, 0].tolist() == [2, 0] and got["features"] is probs


def test_what_is_given_is_for_all_teachers_or_by_name() -> None:
    one = Vocabulary(list("abc"))
    assert vocabularies_of(None, ["a"]) == {}
    assert vocabularies_of(one, ["a", "b"]) == {"a": one, "b": one}
    assert vocabularies_of({"a": 0, "b": 1}, ["a"])["a"].tokens.texts == ["a", "b"], "tokens to ids"
    assert vocabularies_of({"a": one, "b": None}, ["a", "b"]) == {"a": one}
    with pytest.raises(ConfigError, match="there is no teacher 'c'"):
        vocabularies_of({"c": one}, ["a"])
