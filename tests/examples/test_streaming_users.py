"""The example of streaming users at toy size: the stream, the ledger, the nights, and a job that is killed
twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import edldist
from edldist.errors import CheckpointError, ConfigError, InputError, LabelError, PoisonTaskError
from edldist.weights import followed
from examples.streaming_users import models, plain, prepare, recipe, student
from examples.streaming_users.data import HISTORY, QUERY, SUPPORT, Arrivals, Calendar, mean_taste, users
from examples.streaming_users.finetuning import finetuned
from examples.streaming_users.ledger import Ledger
from examples.streaming_users.nights import LAST_NIGHT, Nights, weights_of
from tests.examples.test_digits_job import _Anything
from tests.fault.harness import wait_for
from tests.harness import LocalJob, local_job

DAYS = Calendar(offline=100, per_day=20)


def numbers(batch: dict[str, Tensor]) -> list[int]:
    return batch["arrival"].tolist()


# --- the stream ---------------------------------------------------------------------------------------


def test_days_begin_with_their_first_arrival_and_nights_are_over_before() -> None:
    assert [DAYS.day_of(arrival) for arrival in (0, 99, 100, 119, 120, 10_100)] == [0, 0, 1, 1, 2, 501]
    assert [DAYS.night_before(arrival) for arrival in (0, 100, 119, 120, 140)] == [0, 0, 0, 1, 2]


def test_a_user_is_the_same_whenever_asked_for_and_nobody_knows_what_comes() -> None:
    one, other = users(3, range(98, 103), DAYS), users(3, range(90, 110), DAYS)
    assert all(torch.equal(value, other[name][8:13]) for name, value in one.items())
    assert one["items"].shape[:2] == (5, HISTORY) and one["query"].shape[:2] == (5, QUERY)
    assert set(one["clicks"].unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(users(4, range(98, 103), DAYS)["clicks"], one["clicks"])
    (batch,) = list(Arrivals(DAYS, 4, seed=3, limit=7))
    assert "query_clicks" not in batch and numbers(batch) == [0, 1, 2, 3]


def test_tastes_drift_by_as_much_each_day() -> None:
    steps = [torch.tensor(mean_taste(day + 1) - mean_taste(day)) for day in range(3)]
    torch.testing.assert_close(steps[0], steps[1])
    torch.testing.assert_close(steps[1], steps[2])
    assert steps[0].norm() > 0.1


def test_a_stream_knows_its_place_and_ranks_share_it() -> None:
    stream = Arrivals(DAYS, 4, seed=1)
    batches = iter(stream)
    assert [numbers(next(batches)) for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    state = stream.state_dict()
    expected = next(batches)
    resumed = Arrivals(DAYS, 4, seed=1)
    resumed.load_state_dict(state)
    found = next(iter(resumed))
    assert numbers(found) == [12, 13, 14, 15]
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    parts = [next(iter(Arrivals(DAYS, 4, 1, rank, ranks=2))) for rank in range(2)]
    assert [numbers(part) for part in parts] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("batch", "seed", "says"), [(8, 1, "batch 4, and this one has 8"), (4, 2, "seed 1")])
def test_the_place_in_another_stream_is_refused(batch: int, seed: int, says: str) -> None:
    state = Arrivals(DAYS, 4, seed=1).state_dict()
    with pytest.raises(CheckpointError, match=says):
        Arrivals(DAYS, batch, seed).load_state_dict(state)


def test_ranks_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match="32 arrivals a step cannot be shared by 3 ranks"):
        Arrivals(DAYS, 32, 0, rank=0, ranks=3)


# --- the ledger ---------------------------------------------------------------------------------------


def counted(ledger: Ledger, arrivals: list[int], *versions: int) -> Ledger:
    each = torch.tensor(versions * len(arrivals) if len(versions) == 1 else versions)
    ledger.count(torch.tensor(arrivals), each, each - 1)
    return ledger


def test_a_ledger_finds_what_is_lost_and_repeated_on_its_rank() -> None:
    ledger = counted(Ledger(4), [0, 1, 2, 3], 1)
    assert counted(ledger, [4, 5, 6, 7], 1, 2, 1, 2).totals() == {
        "lost": 0,
        "repeated": 0,
        "newest_version": 2,
    }
    assert counted(ledger, [8, 9, 9, 7], 2).totals() == {"lost": 2, "repeated": 2, "newest_version": 2}
    other = counted(counted(Ledger(4, rank=1, ranks=2), [2, 3], 1), [6, 7], 1)
    assert (other.lost, other.repeated) == (0, 0)


def test_a_ledger_goes_on_from_its_state() -> None:
    ledger = counted(counted(Ledger(2), [0, 1], 3), [3, 4], 3)
    resumed = Ledger(2)
    resumed.load_state_dict(ledger.state_dict())
    resumed.load_rank_state_dict(ledger.rank_state_dict())
    assert counted(resumed, [4, 5], 3).totals() == {"lost": 1, "repeated": 0, "newest_version": 3}
    with pytest.raises(LabelError, match="of version 1, though version 3 has labelled before"):
        counted(resumed, [6, 7], 1)


def test_labels_of_too_old_a_version_or_of_another_than_they_say_are_refused() -> None:
    ledger = counted(counted(Ledger(2), [0, 1], 2), [2, 3], 1)
    counted(ledger, [4, 5], 3)
    with pytest.raises(LabelError, match="arrival 6 and after it are of version 1, though version 3"):
        counted(ledger, [6, 7], 3, 1)
    with pytest.raises(
        LabelError, match=r"versions \[3\], and were computed by the weights of nights \[1, 2\]"
    ):
        ledger.count(torch.tensor([6, 7]), torch.tensor([3, 3]), torch.tensor([1, 2]))


# --- the nights ---------------------------------------------------------------------------------------


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Teachers of all nights, whom nobody has trained."""
    folder = tmp_path / "build"
    folder.mkdir()
    for night in range(LAST_NIGHT + 1):
        torch.manual_seed(night)
        model = models.Teacher()
        model.night.fill_(night)
        save_file(model.state_dict(), weights_of(night, folder))
    return folder


def test_the_teacher_of_each_night_is_trained_where_it_is_missing_and_only_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, name, value in ((prepare, "LOG", 8), (prepare, "FIRST_STEPS", 2), (recipe, "JUDGES", 8)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(prepare, "NEXT_STEPS", 1)
    prepare.main(["--build", str(tmp_path)])
    nights = [load_file(weights_of(night, tmp_path)) for night in range(LAST_NIGHT + 1)]
    assert [int(weights["night"]) for weights in nights] == [0, 1, 2]
    assert not torch.equal(nights[0]["tells.weight"], nights[1]["tells.weight"])
    assert capsys.readouterr().out.count("no weights yet") == 3
    prepare.main(["--build", str(tmp_path)])
    assert "no weights yet" not in capsys.readouterr().out


def test_each_night_is_published_once_over_restarts_too(tmp_path: Path, build: Path) -> None:
    place = tmp_path / "weights"
    with Nights(place, build) as nights:
        nights.begin(resumed=False)
        for night in (0, 0, 1):
            nights.come(night)
    with Nights(place, build) as nights:
        nights.begin(resumed=True)
        for night in (0, 1, 50):
            nights.come(night)
    assert [path.name for path in sorted(place.glob("step-*"))] == ["step-00000002", "step-00000003"]


def test_versions_of_another_run_are_not_gone_on_with(tmp_path: Path, build: Path) -> None:
    place = tmp_path / "weights"
    with Nights(place, build) as nights:
        nights.come(1)
    with (
        Nights(place, build) as nights,
        pytest.raises(ConfigError, match="holds version 2 of the teacher, and"),
    ):
        nights.begin(resumed=False)


def test_a_night_that_would_go_back_or_is_not_there_is_named(tmp_path: Path, build: Path) -> None:
    with Nights(tmp_path / "weights", build) as nights:
        weights_of(1, build).write_bytes(weights_of(0, build).read_bytes())
        with pytest.raises(ConfigError, match="teacher-1.safetensors holds the teacher of night 0"):
            nights.come(1)
        weights_of(1, build).unlink()
        with pytest.raises(ConfigError, match="no teacher of night 1: .*prepare.py makes"):
            nights.come(1)


# --- the models ---------------------------------------------------------------------------------------


def test_adaptation_is_gradient_descent_on_the_clicks_that_are_known() -> None:
    """Against autograd, for one user."""
    model, new = models.student(0, steps=2), users(0, range(1), 0)
    with torch.no_grad():
        model.adaptive.normal_()
    own = model.adaptive.detach().clone()
    rate = torch.nn.functional.softplus(model.fixed["adapts"][0].detach())
    for _ in range(2):
        own.requires_grad_()
        logits = model.seen(new["items"][:, :SUPPORT])[0] @ own
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, new["clicks"][0, :SUPPORT])
        (slope,) = torch.autograd.grad(loss, own)
        own = (own - rate * slope).detach()
    found = model(new["items"], new["clicks"], new["query"])
    torch.testing.assert_close(found[0], model.seen(new["query"])[0] @ own)


@pytest.mark.parametrize("steps", [0, 3])
def test_all_weights_that_are_trained_get_a_gradient(steps: int) -> None:
    """As ``DistributedDataParallel`` wants it."""
    model, new = models.student(0, steps), users(0, range(4), 0)
    model(new["items"], new["clicks"], new["query"]).sum().backward()
    assert all((value.grad is not None) == value.requires_grad for value in model.parameters())


def test_many_are_finetuned_as_one_would_be() -> None:
    """Against a plain loop over one copy of the network."""
    model, new = models.student(1, steps=0), users(5, range(3), 0)
    found = finetuned(model, new, steps=2, rate=0.3)
    for number in range(3):
        copy = models.student(1, steps=0)
        for _ in range(2):
            items, clicks = (
                new["items"][number : number + 1, :SUPPORT],
                new["clicks"][number : number + 1, :SUPPORT],
            )
            torch.nn.functional.binary_cross_entropy_with_logits(
                copy(items, clicks, items), clicks
            ).backward()
            with torch.no_grad():
                for value in copy.parameters():
                    if value.grad is not None:
                        value -= 0.3 * value.grad
                        value.grad = None
        alone = copy(items, clicks, new["query"][number : number + 1])
        torch.testing.assert_close(found[number : number + 1], alone)


@pytest.mark.parametrize("option", ["--steps", "--offline-steps", "--day-steps", "--adapt-steps"])
def test_options_that_cannot_be_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} 0: use 1 or more"):
        recipe.arguments("", [option, "0"])


# --- the job ------------------------------------------------------------------------------------------


class Killed(BaseException):
    pass


class AnyStream(_Anything):
    """Takes where a stream is: each rank is somewhere else in it."""

    def rank_state_dict(self) -> dict:
        return {}

    def load_rank_state_dict(self, state: object) -> None:
        pass


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalJob]:
    """Two workers in threads that follow what the script publishes, over the real path of labels."""
    monkeypatch.setattr(followed, "LOOK_S", 0.02)
    monkeypatch.setattr(recipe, "JUDGES", 20)
    monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path))
    monkeypatch.setenv("EDLDIST_CHECKPOINT_EVERY_STEPS", "2")
    with local_job() as made:
        monkeypatch.setenv("EDLDIST_COORDINATOR", made.address)
        yield made
        assert made.errors == []


def run(
    job: LocalJob, monkeypatch: pytest.MonkeyPatch, given: list[str], killed_at: int | None = None
) -> None:
    """The student's script, whose nights are over once all workers have gone over to the new teacher."""
    rates, come = recipe.set_rates, Nights.come

    def until_killed(optimizer: torch.optim.Optimizer, step: int, offline_steps: int) -> None:
        if step == killed_at:
            raise Killed
        rates(optimizer, step, offline_steps)

    def come_and_wait(nights: Nights, night: int) -> None:
        come(nights, night)
        newest = nights._published.newest
        wait_for("workers to follow", lambda: all(int(worker._version) == newest for worker in job.workers))

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "set_rates", until_killed)
        patch.setattr(Nights, "come", come_and_wait)
        if killed_at is None:
            student.main(given)
        else:
            with pytest.raises(Killed):
                student.main(given)


def serving(job: LocalJob, folder: Path) -> threading.Thread:
    """Two workers, which wait for a first version."""

    def serve() -> None:
        for _ in range(2):
            job.teacher("examples.streaming_users.models:teacher", weights=f"follow:{folder / 'weights'}")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def saved(folder: Path) -> tuple[models.Student, Ledger]:
    model, ledger = models.student(0, 3), Ledger(recipe.BATCH)
    with edldist.Checkpointer(folder / "checkpoints") as checkpointer:
        checkpointer.restore(
            {"model": model, "optimizer": _Anything(), "ledger": ledger, "loader": AnyStream()}
        )
    return model, ledger


def test_a_stream_that_is_killed_counts_each_arrival_once_while_its_teacher_is_replaced(
    tmp_path: Path,
    build: Path,
    job: LocalJob,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--build", str(build), "--offline-steps", "4", "--day-steps", "10", "--steps"]
    workers = serving(job, tmp_path)
    run(job, monkeypatch, [*given, "4"])
    workers.join()
    offline, _ = saved(tmp_path)
    run(job, monkeypatch, [*given, "50"], killed_at=15)
    between, ledger = saved(tmp_path)
    assert ledger.rank_state_dict() == {"expected": 14 * recipe.BATCH, "lost": 0, "repeated": 0, "newest": 1}
    run(job, monkeypatch, [*given, "50"])
    online, ledger = saved(tmp_path)
    assert ledger.rank_state_dict() == {"expected": 50 * recipe.BATCH, "lost": 0, "repeated": 0, "newest": 3}
    assert "{'lost': 0, 'repeated': 0, 'newest_version': 3}" in capsys.readouterr().out
    for name, value in offline.fixed.state_dict().items():
        assert torch.equal(online.fixed.state_dict()[name], value), f"{name} is not fixed"
    assert not torch.equal(online.adaptive, between.adaptive) and not torch.equal(
        between.adaptive, offline.adaptive
    )


def test_a_stream_that_ends_early_is_an_error_and_is_gone_on_with(
    tmp_path: Path, build: Path, job: LocalJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--build", str(build), "--offline-steps", "4", "--day-steps", "10", "--steps", "5"]
    workers = serving(job, tmp_path)
    with pytest.raises(InputError, match="the stream ended after 96 arrivals, at step 3 of 5"):
        run(job, monkeypatch, [*given, "--users", "100"])
    workers.join()
    run(job, monkeypatch, given)
    assert saved(tmp_path)[1].rank_state_dict()["expected"] == 5 * recipe.BATCH
    assert saved(tmp_path)[1].totals() == {"lost": 0, "repeated": 0, "newest_version": 1}


def test_the_baseline_is_trained_and_finetuned(
    tmp_path: Path, build: Path, job: LocalJob, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = serving(job, tmp_path)
    plain.main(["--build", str(build), "--offline-steps", "2"])
    workers.join()
    assert "pooled_auc" in capsys.readouterr().out


def test_a_history_that_cannot_be_is_named(tmp_path: Path, build: Path, job: LocalJob) -> None:
    job.teacher("examples.streaming_users.models:teacher", weights=str(weights_of(0, build)), version="1")
    new = users(0, range(2), 0)
    new["clicks"][1, 5] = 2.0
    loader = job.loader([new], ("items", "clicks", "query"), versions=1, checkpointed=False)
    with pytest.raises(PoisonTaskError, match="a click of 2: clicks are 0 or 1"):
        next(iter(loader))
