"""The cold-items example at toy size: the market, graphs, routed labels, and what adapts to a cold item."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from edldist.config import load_job
from edldist.errors import InputError
from examples.cold_items import data, models, prepare, recipe
from tests.harness import local_job

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def market() -> data.Market:
    return data.Market(seed=3, mature=24, cold=12)


def test_a_market_is_what_its_seed_makes_it(market: data.Market) -> None:
    again, other = data.Market(3, 24, 12), data.Market(4, 24, 12)
    items = torch.arange(36).repeat_interleave(5)
    one, same, third = (each.impressions(items, seed=1) for each in (market, again, other))
    assert torch.equal(one.context, same.context) and torch.equal(one.click, same.click)
    assert torch.equal(one.context, third.context) and not torch.equal(one.click, third.click)
    assert not torch.equal(one.context, market.impressions(items, seed=2).context)
    assert one.context.shape == (180, data.FIELDS) and one.context.max() == data.VALUES - 1


def test_kinds_differ_in_what_matters_and_categories_are_kinds(market: data.Market) -> None:
    much = market._weight > 0.5
    assert (much.sum(1) == 3).all()
    of_kinds = {int(kind): much[market.kind.numpy() == int(kind)] for kind in range(data.KINDS)}
    assert all((rows == rows[0]).all() for rows in of_kinds.values())
    assert len({tuple(rows[0]) for rows in of_kinds.values()}) > data.KINDS / 2
    assert market.category.bincount().tolist() == [9] * data.CATEGORIES
    assert all(len(market.kind[market.category == each].unique()) == 3 for each in range(data.CATEGORIES))


def test_a_click_depends_on_pairs_of_fields_and_on_none_alone(market: data.Market) -> None:
    item = np.zeros(500, dtype=np.int64) + 5
    context = market.contexts(500, seed=0).numpy()
    before = market._logits(item, context)
    fields = set(market._pairs.flatten().tolist())
    for field in range(data.FIELDS):
        changed = context.copy()
        changed[:, field] = (changed[:, field] + 1) % data.VALUES
        assert (market._logits(item, changed) != before).any() == (field in fields)
    np.testing.assert_allclose(market._taste.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(market._taste.mean(2), 0, atol=1e-12)


def test_an_item_that_there_is_not_is_named(market: data.Market) -> None:
    with pytest.raises(ValueError, match="there is no item 36: items are 0 to 35"):
        market.attributes(torch.tensor([0, 36]))
    with pytest.raises(ValueError, match="there is no item -1"):
        market.attributes(torch.tensor([-1, 3]))


def test_the_area_under_the_curve_counts_ties_half() -> None:
    chance = np.random.default_rng(0)
    scores, clicks = chance.integers(0, 9, 200) / 8, chance.integers(0, 2, 200)
    expected = roc_auc_score(clicks, scores)
    assert recipe.auc(torch.tensor(scores), torch.tensor(clicks)) == pytest.approx(expected)
    with pytest.raises(ValueError, match="0 of 3 impressions were clicked"):
        recipe.auc(torch.rand(3), torch.zeros(3))


@pytest.mark.parametrize("graph", models.GRAPHS)
def test_a_network_answers_each_sample_as_it_would_alone(market: data.Market, graph: str) -> None:
    torch.manual_seed(0)
    model = models.GraphNetwork(market.mature, graph)
    item, context = torch.tensor([0, 7, 23]), market.contexts(3, seed=0)
    attributes = market.attributes(item)
    together = model(item, context, attributes)
    alone = [model(item[at : at + 1], context[at : at + 1], attributes[at : at + 1]) for at in range(3)]
    torch.testing.assert_close(together, torch.cat(alone))
    graphs = model.graphs(attributes)
    assert graphs.shape == (3, models.LAYERS, models.NODES, models.NODES)
    assert torch.equal(graphs[0], graphs[1]) == (graph == "global")


def test_a_layer_is_the_papers_formula(market: data.Market) -> None:
    torch.manual_seed(0)
    model = models.GraphNetwork(market.mature)
    item, context = torch.tensor([4]), market.contexts(1, seed=0)
    attributes = market.attributes(item)
    A = model.graphs(attributes)[0].double()
    numbers = torch.cat(
        [context[0] + torch.arange(data.FIELDS) * data.VALUES, attributes[0] + model.starts[-2:]]
    )
    h0 = torch.cat([model.fields.weight[numbers], model.item.weight[item]]).double()
    layers = [h0]
    for layer in range(models.LAYERS):
        layers.append(torch.tanh(A[layer] @ h0 @ model.maps[layer].double()) * layers[-1])
    found = torch.stack([each.sum(0) for each in layers])
    share = (torch.tanh(found) * model.attention.double()).sum(-1).softmax(-1)
    expected = (share * (found * model.readout.double()).sum(-1)).sum() + model.bias
    torch.testing.assert_close(model(item, context, attributes).double()[0], expected, atol=1e-5, rtol=1e-5)


def test_an_unknown_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="graph 'none': there are own, global"):
        models.GraphNetwork(3, "none")


@pytest.mark.parametrize("graph", models.GRAPHS)
def test_adapting_changes_nothing_of_the_network_and_helps(market: data.Market, graph: str) -> None:
    torch.manual_seed(0)
    model = models.GraphNetwork(market.mature, graph)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = recipe.cold_auc(model, market, seed=0)
    assert found.keys() == {"before", "after"} and all(0 < value < 1 for value in found.values())
    assert found["before"] != found["after"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(each.requires_grad for each in model.parameters())
    assert recipe.cold_auc(model, market, seed=0) == found != recipe.cold_auc(model, market, seed=1)


def test_items_adapt_each_by_itself(market: data.Market) -> None:
    """What one item's impressions say moves no other item's graph."""
    torch.manual_seed(0)
    model = models.GraphNetwork(market.mature)
    items = market.mature + torch.arange(3)
    support = market.impressions(items.repeat_interleave(recipe.SUPPORT), seed=0)
    first = recipe.adapted(model, market.attributes(items), support)
    support.click[recipe.SUPPORT : 2 * recipe.SUPPORT] = 1.0  # of the second one
    second = recipe.adapted(model, market.attributes(items), support)
    begun = recipe.unadapted(model, market.attributes(items))
    for one, other, unmoved in zip(first, second, begun, strict=True):
        same = (one == other).flatten(1).all(1).tolist()
        assert same == [True, False, True] and (one != unmoved).flatten(1).any(1).all()


def test_the_job_names_a_teacher_for_each_category_with_weights_that_the_preparation_makes() -> None:
    job = load_job(ROOT / "examples" / "cold_items" / "job.yaml")
    assert [teacher.name for teacher in job.teachers] == recipe.TEACHERS
    made = [f"examples/cold_items/build/teacher-{each}.safetensors" for each in range(data.CATEGORIES)]
    assert [str(teacher.weights) for teacher in job.teachers] == made
    assert models.teacher().item.num_embeddings == data.market().mature
    assert recipe.options(None).parse_args(job.student.args) == recipe.options(None).parse_args([])


def test_a_teacher_learns_the_clicks_of_its_category(
    market: data.Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "IMPRESSIONS", 5_000)
    _, few = prepare.train_teacher(data.market(), 1, steps=2)
    _, more = prepare.train_teacher(data.market(), 1, steps=60)
    assert few["auc"] < more["auc"]


def test_students_learn_from_routed_labels_and_a_category_without_a_teacher_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    market = data.market()
    for number in range(data.CATEGORIES):
        save_file(models.teacher().state_dict(), tmp_path / f"{number}.safetensors")
    rows = recipe.samples(market, steps=6, seed=0)
    model = models.GraphNetwork(market.mature)
    optimizer, schedule = recipe.optimization(model, 6)
    with local_job() as job:
        for number, name in enumerate(recipe.TEACHERS):
            path = str(tmp_path / f"{number}.safetensors")
            job.teacher("examples.cold_items.models:teacher", name=name, weights=path)
        batches = [range(at, at + recipe.BATCH) for at in range(0, len(rows), recipe.BATCH)]
        loader = job.loader(
            rows.loader(batches), inputs=("item", "context"), teacher=recipe.TEACHERS, route="category"
        )
        losses = []
        for batch, labels in loader:
            assert labels["logits"].shape == (recipe.BATCH,)
            logits = model(batch["item"], batch["context"], batch["attributes"])
            loss = F.binary_cross_entropy_with_logits(logits, labels["logits"].sigmoid())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        assert len(losses) == 6 and losses[-1] < losses[0]
        rows._tensors["category"][3] = data.CATEGORIES
        loader = job.loader(
            rows.loader([[0, 1], [2, 3]]),
            inputs=("item", "context"),
            teacher=recipe.TEACHERS,
            route="category",
        )
        taken = []
        with pytest.raises(InputError, match="route='category' gives sample 1 to 4, and the teachers are"):
            for batch, _ in loader:
                taken.append(len(batch["item"]))
        assert taken == [2]
