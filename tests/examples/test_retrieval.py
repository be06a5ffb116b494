"""The retrieval example: its parts, its loss on two ranks, steps with a served teacher, and the whole job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

import edldist
from edldist.errors import PoisonTaskError
from examples.common.figures import Figure
from examples.retrieval import joint, models, recipe, sweep
from examples.retrieval.data import NOBODY, Collection, generated
from examples.retrieval.mining import Lists, Mined, Texts, nearest
from tests.examples import retrieval_rank
from tests.harness import local_job
from tests.integration.ranks import run_ranks

ROOT = Path(__file__).resolve().parents[2]
SEED = 7
WORDS = models.KINDS["words"]


@pytest.fixture(scope="module")
def collection() -> Collection:
    return generated(SEED)


@pytest.fixture(scope="module")
def texts(collection: Collection) -> Texts:
    return Texts(collection, WORDS.read)


def test_a_query_has_several_passages_that_answer_it_and_one_that_is_annotated(
    collection: Collection,
) -> None:
    train, test = collection.train.tolist(), collection.test.tolist()
    assert all(int(collection.annotated[query]) in collection.relevant[query] for query in train)
    assert all(collection.annotated[query] == NOBODY for query in [*test, *collection.unlabelled.tolist()])
    assert sum(len(collection.relevant[query]) for query in train) > 3 * len(train)
    learnt = {passage for query in train for passage in collection.relevant[query]}
    assert not learnt & {passage for query in test for passage in collection.relevant[query]}


def test_a_seed_makes_the_same_collection_again(collection: Collection) -> None:
    again = generated.__wrapped__(SEED)
    assert again.passages == collection.passages and again.queries == collection.queries
    assert torch.equal(again.annotated, collection.annotated)
    assert generated(SEED + 1).passages != collection.passages


def test_a_collection_in_which_nothing_answers_a_query_is_refused(collection: Collection) -> None:
    judging, learning = int(collection.test[3]), int(collection.train[0])
    relevant = [[] if query == judging else each for query, each in enumerate(collection.relevant)]
    with pytest.raises(ValueError, match=rf"query {judging} \(.* judges, and no passage answers it"):
        replace(collection, relevant=relevant)
    annotated = collection.annotated.clone()
    annotated[learning] = NOBODY
    with pytest.raises(ValueError, match=rf"query {learning} .* has passage -1 annotated, of"):
        replace(collection, annotated=annotated)


def test_lists_longer_than_what_there_is_are_refused(collection: Collection, texts: Texts) -> None:
    many = len(collection.passages) + 1
    with pytest.raises(ValueError, match=rf"{many} passages for each query, of {many - 1} in all"):
        nearest(models.student(), texts, collection.test, many)
    with pytest.raises(ValueError, match="lists of 31 passages cannot be drawn from the 30"):
        Lists(collection, collection.train, Mined(30), 31, seed=0)


def test_a_list_is_the_annotated_passage_and_others_that_the_student_found(
    collection: Collection, texts: Texts
) -> None:
    asked = torch.cat([collection.train[:50], collection.unlabelled[:50]])
    mined = Mined(12)
    mined.look(models.student(), texts, asked)
    lists = Lists(collection, asked, mined, 6, seed=0)
    for place, query in enumerate(asked.tolist()):
        found = lists[place]
        passages = found["passages"].tolist()
        assert found["query"] == query and len(set(passages)) == 6
        assert set(passages[1:]) <= set(mined.found[place].tolist())
        first = int(collection.annotated[query]) if place < 50 else int(mined.found[place, 0])
        assert passages[0] == first and bool(found["annotated"]) == (place < 50)
    again, other = Mined(12), Mined(12)
    again.load_state_dict(mined.state_dict())
    assert torch.equal(Lists(collection, asked, again, 6, seed=0)[5]["passages"], lists[5]["passages"])
    other.load_state_dict(mined.state_dict() | {"looks": 2})
    drawn = [Lists(collection, asked, each, 6, seed=0)[5]["passages"][1:] for each in (again, other)]
    assert not torch.equal(*drawn)


def test_what_the_teacher_is_not_sure_of_is_no_negative() -> None:
    batch = {
        "query": torch.tensor([10, 11, 12]),
        "passages": torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        "annotated": torch.tensor([True, False, False]),
    }
    scores = torch.logit(torch.tensor([[0.05, 0.5, 0.01], [0.2, 0.95, 0.03], [0.3, 0.2, 0.01]]))
    judged = recipe.denoised(batch, scores)
    assert judged.right.tolist() == [0, 1, 0] and judged.counts.tolist() == [True, True, False]
    assert judged.answers.tolist() == [[True, True, False], [True, True, False], [True, True, False]]
    undenoised = recipe.annotated(batch)
    assert undenoised.answers.tolist() == [[True, False, False]] * 3
    assert undenoised.counts.tolist() == [True, False, False]


def test_a_passage_that_answers_a_query_is_no_negative_wherever_it_stands() -> None:
    batch = {
        "query": torch.tensor([0, 1]),
        "passages": torch.tensor(
            [[1, 2, 3], [4, 2, 1]]
        ),  # 1 and 2 are in both lists, and answer the first query
        "annotated": torch.tensor([True, True]),
    }
    queries = torch.nn.functional.normalize(torch.randn(2, 4), dim=-1)
    passages = torch.nn.functional.normalize(torch.randn(5, 4), dim=-1)[batch["passages"]]
    judged = recipe.denoised(batch, torch.tensor([[5.0, 5.0, -5.0], [5.0, -5.0, -5.0]]))
    scores = queries @ passages.flatten(0, 1).T / recipe.TEMPERATURE
    first = scores[0, [0, 2, 3]].log_softmax(-1)[0]  # the negatives: 3 and 4
    second = scores[1, [3, 0, 1, 2, 4, 5]].log_softmax(-1)[0]
    found = recipe.contrast(queries, passages, batch, judged)
    torch.testing.assert_close(found, -(first + second) / 2)


def test_the_judge_by_hand(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(
        collection, test=torch.tensor([0, 1]), relevant=[[0, 1], [3], *([0] for _ in collection.queries[2:])]
    )
    found = torch.tensor([[5, 0, 7, 1, *range(20, 26)], list(range(20, 30))])
    monkeypatch.setattr(recipe, "nearest", lambda *_: found)
    figures = recipe.judge(models.student(), Texts(few, WORDS.read), few)
    assert figures == {"mrr": pytest.approx(25.0), "r_precision": pytest.approx(25.0)}


@pytest.mark.slow
def test_two_ranks_have_the_gradient_of_one_process(tmp_path: Path) -> None:
    alone = retrieval_rank.gradient(rank=0, ranks=1)
    for told in run_ranks("tests.examples.retrieval_rank", {}, 2, tmp_path):
        assert told["grad"] == pytest.approx(alone, rel=1e-5, abs=1e-7)


def test_a_served_teacher_judges_the_lists_that_the_student_mined(
    collection: Collection, texts: Texts
) -> None:
    asked = collection.train[:192]
    model, mined = models.student(), Mined(10)
    mined.look(model, texts, asked)
    lists = Lists(collection, asked, mined, 6, seed=0)
    teacher = models.teacher(SEED)
    with local_job() as job:
        job.teacher("examples.retrieval.models:teacher", model_args={"seed": SEED}, batch_size=32)
        loader = job.loader(DataLoader(lists, 64), inputs=("query", "passages"))
        optimizer, found = recipe.optimization(model, WORDS.rate), []
        for batch, labels in loader:
            assert labels["scores"].shape == batch["passages"].shape
            queries, passages = model(texts.queries[batch["query"]], texts.passages[batch["passages"]])
            loss = recipe.contrast(queries, passages, batch, recipe.denoised(batch, labels["scores"]))
            loss = loss + edldist.losses.ranking(recipe.own_scores(queries, passages), labels["scores"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        assert len(found) == 3 and job.errors == []
    assert teacher(batch["query"], batch["passages"])["scores"].shape == labels["scores"].shape


def test_scores_that_are_not_finite_end_the_loop_with_the_teachers_error(
    collection: Collection, texts: Texts, tmp_path: Path
) -> None:
    broken = models.teacher(SEED)
    torch.nn.init.constant_(broken.reader.judge[2].bias, float("nan"))
    save_file(broken.state_dict(), tmp_path / "broken.safetensors")
    mined = Mined(10)
    mined.look(models.student(), texts, collection.train[:8])
    lists = Lists(collection, collection.train[:8], mined, 4, seed=0)
    with local_job() as job:
        job.teacher(
            "examples.retrieval.models:teacher",
            model_args={"seed": SEED},
            weights=str(tmp_path / "broken.safetensors"),
        )
        loader = job.loader(DataLoader(lists, 8), inputs=("query", "passages"))
        with pytest.raises(PoisonTaskError, match="'scores' has non-finite values in 8 of 8 rows"):
            next(iter(loader))


def test_a_teacher_that_learns_is_published_now_and_then(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = models.teacher(SEED)
    save_file(prepared.state_dict(), tmp_path / "prepared.safetensors")
    monkeypatch.setattr(joint, "weights", lambda seed, encoder: (tmp_path, tmp_path / "prepared.safetensors"))
    teacher = joint.LearningTeacher(SEED, "words", tmp_path / "published")
    teacher.start()
    assert teacher.published == 1
    batch = {
        "query": collection.train[:4],
        "passages": torch.arange(12).view(4, 3),
        "annotated": torch.tensor([True, True, True, False]),
    }
    judged = recipe.denoised(batch, torch.tensor([[5.0, -5.0, 0.0]] * 3 + [[0.0, -5.0, -5.0]]))
    before = prepared.reader.judge[2].bias.item()
    teacher.learn(batch, judged, torch.zeros(4, 3), step=1)  # not yet
    assert teacher.model.reader.judge[2].bias.item() == before
    teacher.learn(batch, judged, torch.zeros(4, 3), step=20)
    assert teacher.model.reader.judge[2].bias.item() != before and teacher.published == 2
    teacher.close()


def test_the_gate_is_missed_by_any_of_its_conditions() -> None:
    held = {
        "cross-batch - undenoised, MRR@10": 1.0,
        "denoised - cross-batch, MRR@10": 1.0,
        "denoised - undenoised, MRR@10": 8.0,
        "joint - denoised, R-precision": 8.0,
    }
    figures = {name: Figure(value, None, [0]) for name, value in held.items()}
    assert all(sweep.conditions(figures).values())
    for name, value in held.items():
        missed = sweep.conditions(figures | {name: Figure(value - 1.0, None, [0])})
        assert [what for what, holds in missed.items() if not holds] == [
            what for what in missed if what.startswith(name)
        ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_both_models_learn_together_in_a_whole_job(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "__main__.py"), "run", "examples/retrieval/job.yaml"]
        + ["--output", str(tmp_path / "out")],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    metrics = result["metrics"]
    assert (result["status"], result["steps"], result["tasks"]["failed"]) == ("completed", 340, 0)
    assert metrics["published"] >= 15 and metrics["version"] > 5, metrics
    assert metrics["r_precision"] > metrics["r_precision_before"] + 5, metrics
