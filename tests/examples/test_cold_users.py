"""The example of cold users at toy size: structures, models, draws, and a search that is killed in its
middle."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import edldist
from edldist.errors import ConfigError, PoisonTaskError
from examples.cold_users import models, plain, prepare, recipe, student
from examples.cold_users.data import COLD, ITEMS, MATURE, QUERY, SUPPORT, Draws, World
from examples.cold_users.structure import FILM, LAYERS, PLACES, best, chosen, described
from tests.examples.test_digits_job import _Anything, result, start
from tests.fault.harness import wait_for
from tests.fault.test_digits_exact import events
from tests.fault.test_language_model import rank_of
from tests.harness import LocalJob, local_job

TOY = ["--steps", "12", "--search-steps", "6", "--keep", "5"]


@pytest.fixture(scope="module")
def world() -> World:
    return World.made()


def support_of(world: World, users: int) -> tuple[Tensor, Tensor, Tensor]:
    cold = world.cold()
    return cold["support"][:users], cold["ratings"][:users], cold["query"][:users]


# --- structures ---------------------------------------------------------------------------------------


def test_the_best_places_are_kept_in_their_order() -> None:
    weights = [0.0] * len(PLACES)
    weights[5], weights[2], weights[11] = 0.9, 0.5, 0.7
    assert best(weights, 3) == ("mul1", "min2", "add3")
    assert best([0.0] * len(PLACES), 2) == PLACES[:2]
    assert best(weights, len(PLACES)) == PLACES


def test_structures_are_read_and_described() -> None:
    assert chosen("film") == FILM and len(FILM) == 2 * LAYERS and chosen("all") == PLACES
    assert chosen("add3,max1") == ("max1", "add3")
    assert described(("max1", "mul1", "add3")) == "max mul | - | add"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--keep", "13"], "--keep 13: keep from 1 to 12"),
        (["--keep", "0"], "--keep 0: keep from 1 to 12"),
        (["--search-steps", "0"], "search for 1 step at least"),
        (["--steps", "100", "--search-steps", "100"], "--search-steps 100 of --steps 100"),
        (["--structure", "max1,mix2"], "there is no modulation 'mix2'.* max1, min1"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_options_that_cannot_be_are_refused(given: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        recipe.arguments("", given)


def test_more_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match="13 modulations cannot be kept of 12"):
        best([0.0] * len(PLACES), 13)


# --- models and data ----------------------------------------------------------------------------------


def test_what_is_not_kept_has_no_part_and_the_order_of_ratings_has_none(world: World) -> None:
    model = models.student(0)
    model.keep(("max2",), seed=1)
    support, ratings, query = support_of(world, 4)
    found = model(support, ratings, query)
    assert found.shape == (4, QUERY)
    order = torch.randperm(SUPPORT, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(support[:, order], ratings[:, order], query), found)
    found.sum().backward()
    of_gates = model.tells[-1].bias.grad.view(LAYERS, 4, models.WIDTH).abs().sum(-1)
    assert of_gates[1, 0] > 0 and of_gates.count_nonzero() == 1


def test_fixed_film_is_feature_wise_linear(world: World) -> None:
    """Against the formula: h * (1 + scale) + shift behind each layer."""
    model = models.student(3)
    model.keep(FILM, seed=3)
    support, ratings, query = support_of(world, 3)
    read = model.reads(torch.cat([support, ratings[..., None]], -1)).mean(1)
    vectors = model.tells(read).view(3, LAYERS, 4, 1, models.WIDTH)
    hidden = query
    for number, layer in enumerate(model.layers):
        hidden = torch.relu(layer(hidden)) * (1 + vectors[:, number, 2]) + vectors[:, number, 3]
    torch.testing.assert_close(model(support, ratings, query), model.rates(hidden).squeeze(-1))


def test_all_weights_get_a_gradient_while_it_searches_and_later(world: World) -> None:
    """As ``DistributedDataParallel`` wants it."""
    model = models.student(0)
    for _ in range(2):
        model.zero_grad()
        model(*support_of(world, 2)).sum().backward()
        assert all(value.grad is not None for value in model.parameters())
        model.keep(("min1",), seed=0)


def test_a_search_leaves_its_weights_and_begins_anew() -> None:
    model, fresh = models.student(0), models.student(7)
    with torch.no_grad():
        model.weights.copy_(torch.arange(12.0))
    assert model.places == ()
    before = torch.get_rng_state()
    model.keep(best(model.weights.tolist(), 4), seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.places == ("max3", "min3", "mul3", "add3") and model.gates().sum() == 4
    assert torch.equal(model.weights, torch.arange(12.0))
    others = {name: value for name, value in fresh.named_parameters() if name != "weights"}
    assert all(torch.equal(model.get_parameter(name), value) for name, value in others.items())


def test_a_draw_is_a_mature_user_with_ratings_that_there_are(world: World) -> None:
    for rated in (False, True):
        data, again = (Draws(world, 40, seed=5, rated=rated) for _ in range(2))
        for number in range(40):
            draw = data[number]
            assert all(torch.equal(value, again[number][key]) for key, value in draw.items())
            user, known = int(draw["user"]), set(world.rated[int(draw["user"])].tolist())
            assert 0 <= user < MATURE and draw["support"].shape[0] == SUPPORT
            assert ("truth" in draw) == rated and (not rated or set(draw["asked"].tolist()) <= known)
            assert set(world.ratings[user].tolist()) >= set(draw["ratings"].tolist())
    cold = world.cold()
    assert cold["user"].min() == MATURE and len(cold["user"]) == COLD and cold["truth"].shape == (COLD, QUERY)


def test_the_teacher_is_trained_where_it_is_missing_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prepare, "WEIGHTS", tmp_path / "build" / "teacher.safetensors")
    monkeypatch.setattr(prepare, "STEPS", 3)
    prepare.main()
    models.teacher().load_state_dict(load_file(prepare.WEIGHTS))
    said = capsys.readouterr().out
    assert "training for 3 steps" in said
    prepare.main()
    assert capsys.readouterr().out == said.splitlines(keepends=True)[-1]


def test_the_plain_student_searches_too(capsys: pytest.CaptureFixture[str]) -> None:
    model = plain.main(TOY)
    assert len(model.places) == 5 and "squared error of new users' ratings" in capsys.readouterr().out


# --- the job ------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalJob]:
    """Teachers in threads, over the real path of labels, for whatever scripts are run here."""
    with local_job() as made:
        for name, value in {"COORDINATOR": made.address, "DETERMINISTIC": "1", "TASK_SIZE": "16"}.items():
            monkeypatch.setenv(f"EDLDIST_{name}", value)
        monkeypatch.setenv("EDLDIST_CHECKPOINT_EVERY_STEPS", "2")
        yield made
        assert made.errors == []


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int | None = None) -> dict[str, Tensor]:
    """The student's script in a job's folder; what its last checkpoint holds."""
    monkeypatch.setenv("EDLDIST_OUTPUT", str(folder))
    with monkeypatch.context() as patch:
        rates = recipe.set_rates

        def until_killed(optimizer: torch.optim.Optimizer, step: int, args: object) -> None:
            if step == killed_at:
                raise Killed
            rates(optimizer, step, args)

        patch.setattr(recipe, "set_rates", until_killed)
        if killed_at is None:
            student.main(TOY)
        else:
            with pytest.raises(Killed):
                student.main(TOY)
    return saved(folder)[1]


def saved(folder: Path) -> tuple[int, dict[str, Tensor]]:
    model = models.student(0)
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        step = checkpointer.restore({"model": model, "optimizer": _Anything(), "loader": _Anything()})
    assert step is not None
    return step, model.state_dict()


def test_a_search_that_is_killed_in_its_middle_ends_as_one_that_was_not(
    tmp_path: Path, job: LocalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    job.teacher("examples.cold_users.models:teacher", batch_size=32)
    quiet = run(tmp_path / "quiet", monkeypatch)
    killed = run(tmp_path / "fire", monkeypatch, killed_at=5)
    assert killed["searching"] == 1 and killed["weights"].any(), "it was not searching any more"
    found = run(tmp_path / "fire", monkeypatch)
    assert saved(tmp_path / "fire")[0] == 12 and found["kept"].sum() == 5 and found["searching"] == 0
    assert all(torch.equal(found[name], value) for name, value in quiet.items())


def test_a_user_whom_the_teacher_does_not_know_is_named(job: LocalJob, world: World) -> None:
    job.teacher("examples.cold_users.models:teacher")
    cold = world.cold()
    for key, value, says in (("user", MATURE, f"user {MATURE}"), ("asked", ITEMS, f"item {ITEMS}")):
        batch = {"user": torch.zeros(4, dtype=torch.int64), "asked": cold["asked"][:4].clone()}
        batch[key].flatten()[-1] = value
        loader = job.loader([batch], ("user", "asked"), checkpointed=False)
        with pytest.raises(
            PoisonTaskError, match=f"{says}: the teacher knows {key.replace('asked', 'item')}s 0 to"
        ):
            next(iter(loader))
        loader.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_rank_killed_while_it_searches_ends_with_the_weights_of_the_quiet_run(tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    save_file(models.teacher().state_dict(), weights)
    settings = (
        *("prepare=null", "deterministic=true", f"teachers.0.weights={weights}", "checkpoint.every_steps=20"),
        "student.args=[--steps, '200', --search-steps, '120', --keep, '5']",
    )
    options = [part for setting in settings for part in ("--set", setting)]
    command = [
        sys.executable,
        "launch/__main__.py",
        "run",
        "examples/cold_users/job.yaml",
        *options,
        "--output",
    ]
    quiet, fire, log = tmp_path / "quiet", tmp_path / "fire", tmp_path / "log"
    assert start(*command, str(quiet), log=log).wait(180) == 0, log.read_text()

    job = start(*command, str(fire), log=log)
    try:
        wait_for("a checkpoint", lambda: events(fire, "checkpoint_saved"))
        os.kill(rank_of(job.pid, "cold_users/student.py"), signal.SIGKILL)
        assert job.wait(180) == 0, log.read_text()
    finally:
        job.kill()
        job.wait()
    resumed = [event["step"] for event in events(fire, "checkpoint_restored")]
    assert resumed and resumed[0] < 120, "it was killed after its search"
    assert (result(fire)["steps"], result(fire)["student_restarts"]) == (200, 1)
    assert json.dumps(result(fire)["metrics"]["error"]) == json.dumps(result(quiet)["metrics"]["error"])
    expected, found = saved(quiet), saved(fire)
    assert expected[0] == found[0] == 200
    assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
