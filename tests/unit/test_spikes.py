"""Loss spikes: what counts as one, what is left out, and how far back a run goes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edldist
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.errors import CheckpointError, ConfigError, InputError, LossSpikeError
from edldist.observe import reporter
from edldist.stability.attempts import Attempts
from edldist.stability.recent import Recent
from edldist.student.loop.left_out import LeftOut

# --- the bound ----------------------------------------------------------------------------------------


def test_the_bound_is_the_median_and_so_many_robust_spreads_above_it() -> None:
    recent = Recent(window=5, least=5, tolerance=4.0, values=[1.0, 2.0, 3.0, 4.0])
    assert recent.bound == math.inf and not recent.is_spike(1e9)
    recent.add(100.0)
    assert recent.bound == pytest.approx(3.0 + 4.0 * 1.4826 * 1.0), "distances 2, 1, 0, 1, 97"
    assert recent.is_spike(9.0) and not recent.is_spike(8.9) and not recent.is_spike(-1e9)
    for _ in range(3):
        recent.add(2.0)
    assert recent.values == [4.0, 100.0, 2.0, 2.0, 2.0], "the last five"
    assert recent.bound == pytest.approx(2.0 + 4.0 * 0.05 * 2.0), "hardly any spread: 5% of the median"


def test_values_that_are_mostly_0_are_no_reason_to_take_every_other_one_for_a_spike() -> None:
    recent = Recent(window=10, least=3, tolerance=10.0, values=[0.0] * 5)
    assert recent.bound == math.inf and not recent.is_spike(0.3), "a hinge loss: most batches have none"
    recent.add(0.3)
    assert recent.bound == pytest.approx(10.0 * 1.2533 * 0.3 / 6)
    assert not recent.is_spike(0.6) and recent.is_spike(1e3) and recent.is_spike(math.nan)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_a_spike_from_the_first_value_on(value: float) -> None:
    assert Recent(10, 5, 10.0).is_spike(value)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20))
def test_no_value_at_or_below_the_median_is_a_spike(values: list[float]) -> None:
    recent = Recent(50, 3, 1.0, values)
    assert not recent.is_spike(sorted(values)[(len(values) - 1) // 2])


# --- what is left out ---------------------------------------------------------------------------------


def test_each_further_spike_leaves_out_more_around_it_and_goes_back_further() -> None:
    attempts = Attempts(most=3, calm=10)
    for step in range(8):
        attempts.good(step, (0, 10 * step))
    assert attempts.spike(8, (0, 80)) == (1, [((0, 80), 1)], 8)
    attempts.back_at(5)
    for step in range(5, 8):
        attempts.good(step, (0, 10 * step))
    # Without the batch at 80 it comes at 90: the one before may have done it, and checkpoint 8 may know that.
    assert attempts.spike(8, (0, 90)) == (2, [((0, 70), 1), ((0, 90), 2)], 7)
    attempts.back_at(7)
    assert not attempts.exhausted
    assert attempts.spike(7, (0, 110)) == (
        3,
        [*(((0, at), 1) for at in (40, 50, 60)), ((0, 110), 4)],
        4,
    )
    assert attempts.exhausted


def test_a_row_ends_when_the_loop_has_come_beyond_the_spike_for_long_enough() -> None:
    attempts = Attempts(most=1, calm=5)
    assert attempts.spike(3, (0, 3)).number == 1
    attempts.back_at(0)
    for step in range(8):
        attempts.good(step, (0, step))
        assert attempts.exhausted
    attempts.good(8, (0, 9))
    assert not attempts.exhausted and attempts.spike(9, (0, 10)) == (1, [((0, 10), 1)], 9)


def test_a_range_is_left_out_whenever_the_loop_comes_by_and_is_new_once() -> None:
    left_out = LeftOut()
    left_out.add((0, 20), 2)
    for round in range(2):
        found = [left_out.takes((0, at)) for at in (0, 10, 20, 30, 40)]
        assert found == [False, False, True, True, False]
        assert left_out.is_new((0, 20)) == (round == 0)
    left_out.add((0, 30), 1)
    assert [left_out.takes((0, at)) for at in (20, 30, 40)] == [True, True, False], (
        "no longer for two reasons"
    )
    assert left_out.takes((0, 20)), "and somebody goes back in the middle of the range"
    left_out.moved()
    assert not left_out.takes((0, 10))


# --- a loop -------------------------------------------------------------------------------------------


class Loader:
    """Numbers in an order of each epoch's own, as a ``DistillLoader`` gives batches: with a position."""

    def __init__(self, batches: int, spoilt: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.batches, self.spoilt = batches, spoilt
        self.epoch, self.consumed = 0, 0
        self.start = (0, 0)
        self.loss_weight = 1.0
        self.out = LeftOut()
        self.left: list[int] = []
        self.life = 0

    def __iter__(self) -> Iterator[Any]:
        life = self.life
        while self.consumed < self.batches:
            self.start = (self.epoch, self.consumed)
            number = self.epoch * self.batches + self.consumed
            self.consumed += 1
            if self.out.takes(self.start):
                if self.out.is_new(self.start):
                    self.left.append(number)
                continue
            yield number, {}
            assert life == self.life, "a loop that was restored goes on"
        self.epoch, self.consumed = self.epoch + 1, 0

    def leave_out(self, start: tuple[int, int], batches: int = 1) -> None:
        self.out.add(start, batches)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.consumed = state["epoch"], state["consumed"]
        self.life += 1
        self.out.moved()


class Census:
    """Which batches the model has learnt from, in order."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"taken": list(self.taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = list(state["taken"])


class Run:
    """A small model that learns a batch made of each number; a spoilt batch is huge, and harms at once."""

    def __init__(
        self,
        folder: Path,
        batches: int = 30,
        epochs: int = 2,
        spoilt: set[int] = frozenset(),  # type: ignore[assignment]
        without: set[int] = frozenset(),  # type: ignore[assignment]
        every: int = 5,
        harm: str = "shown",
        **options: Any,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.loader, self.census = Loader(batches), Census()
        self.guard = edldist.SpikeGuard(
            self.loader, epochs=epochs, **{"window": 10, "least": 5, "tolerance": 300.0} | options
        )
        self.state = {
            "model": self.model,
            "optimizer": self.optimizer,
            "loader": self.loader,
            "census": self.census,
            "guard": self.guard,
        }
        self.spoilt, self.without, self.every, self.harm = spoilt, without, every, harm
        self.checkpointer = Checkpointer(folder, keep=3, every_steps=every)
        self.step = 0
        self.wait = True

    def loss_of(self, number: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(8, 3, generator=generator)
        outputs = self.model(inputs)
        loss = (outputs - inputs.sum(1, keepdim=True)).square().mean()
        if number in self.spoilt and self.harm == "shown":
            loss = loss * 1e6
        return loss

    def go(self) -> Run:
        restored = self.checkpointer.restore(self.state)
        if restored is None:
            self.checkpointer.save(0, self.state)
        self.step = restored or 0
        for number, _ in self.guard:
            if number in self.without:
                continue
            loss = self.loss_of(number)
            self.optimizer.zero_grad()
            loss.backward()
            if self.guard.spiked(self.step, loss):
                self.step = self.guard.roll_back(self.checkpointer, self.state)
                continue
            self.optimizer.step()
            if number in self.spoilt and self.harm == "later":
                with torch.no_grad():
                    self.model[0].weight.mul_(1e4)
            self.census.taken.append(number)
            self.step += 1
            if self.checkpointer.due(self.step):
                self.checkpointer.save(self.step, self.state)
        self.checkpointer.close()
        return self


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    seen: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(reporter, "event", lambda name, **fields: seen.append((name, fields)))
    return seen


def same(one: Run, other: Run) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )


def test_a_run_with_a_bad_batch_ends_as_one_that_never_had_it(tmp_path: Path, events: list[Any]) -> None:
    run = Run(tmp_path / "a", spoilt={37}).go()
    clean = Run(tmp_path / "b", spoilt={37}, without={37}).go()
    assert same(run, clean) and run.census.taken == [n for n in range(60) if n != 37] == clean.census.taken
    assert run.loader.left == [37] and (run.guard.spikes, run.guard.rollbacks) == (1, 1)
    told = [(name, fields) for name, fields in events if name in ("loss_spiked", "rolled_back")]
    assert [name for name, _ in told] == ["loss_spiked", "rolled_back"]
    spike, back = (fields for _, fields in told)
    assert (spike["step"], spike["what"], spike["epoch"], spike["position"]) == (37, "loss", 1, 7)
    assert float(spike["value"]) > float(spike["bound"]) > 0
    assert back == {"step": 37, "restored": 35, "batches": 1, "in_a_row": 1}


def test_going_back_over_the_end_of_an_epoch_goes_on_in_the_one_before(tmp_path: Path) -> None:
    run = Run(tmp_path / "a", spoilt={31}, every=7).go()
    clean = Run(tmp_path / "b", without={31}, every=7).go()
    assert same(run, clean) and run.loader.epoch == 2
    assert run.census.taken == [n for n in range(60) if n != 31] and run.loader.left == [31]


def test_harm_that_shows_later_is_found_by_leaving_out_more_and_going_back_behind_the_harmed_checkpoint(
    tmp_path: Path, events: list[Any]
) -> None:
    """Batch 24 spoils the weights after its own loss was fine, and the checkpoint of step 25 has that."""
    run = Run(tmp_path / "a", spoilt={24}, harm="later").go()
    backs = [fields for name, fields in events if name == "rolled_back"]
    assert [back["restored"] for back in backs] == [25, 20], "the second time behind what may have done it"
    assert 24 in run.loader.left and 24 not in run.census.taken
    assert sorted(run.census.taken + run.loader.left) == list(range(60))
    clean = Run(tmp_path / "b", without=set(run.loader.left)).go()
    assert same(run, clean)


def test_a_checkpoint_that_is_still_being_saved_is_waited_for(tmp_path: Path) -> None:
    run = Run(tmp_path, spoilt={20}, every=20)
    run.go()
    assert run.census.taken == [n for n in range(60) if n != 20]


def test_a_loss_that_is_not_finite_is_met_from_the_first_step_on(tmp_path: Path) -> None:
    run = Run(tmp_path, spoilt={0, 1})
    run.loss_of = lambda number: run.model(torch.ones(1, 3)).sum() * (math.nan if number < 2 else 1.0)  # type: ignore
    run.guard = edldist.SpikeGuard(run.loader, epochs=2, window=10, least=10, tolerance=1e6)
    run.state["guard"] = run.guard
    run.go()
    assert run.loader.left[:2] == [0, 1] and 0 not in run.census.taken


@settings(max_examples=6, deadline=None)
@given(
    spoilt=st.sets(st.integers(6, 59), max_size=4),
    every=st.integers(1, 9),
    harm=st.sampled_from(["shown", "later"]),
)
def test_each_sample_is_learnt_from_once_or_counted_as_left_out(
    tmp_path_factory: pytest.TempPathFactory, spoilt: set[int], every: int, harm: str
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, Any] = {"every": every, "harm": harm, "window": 6}
    run = Run(folder / "a", spoilt=spoilt, **options)
    try:
        run.go()
    except LossSpikeError as error:
        assert harm == "later" or len(spoilt) > 1, error
        run.checkpointer.close()
        return
    taken = run.census.taken
    assert taken == sorted(set(taken)), "in order, none twice"
    assert sorted(taken + run.loader.left) == list(range(60))
    if harm == "shown":
        assert not spoilt & set(taken)
    clean = Run(folder / "b", spoilt=spoilt, without=set(run.loader.left), **options)
    assert same(run, clean.go())


def test_a_run_that_was_killed_after_a_rollback_ends_the_same(tmp_path: Path) -> None:
    whole = Run(tmp_path / "a", spoilt={37}).go()
    first = Run(tmp_path / "b", spoilt={37})
    at, spiked = [0], first.guard.spiked

    def killed(step: int, loss: Any) -> bool:
        at[0] += 1
        if at[0] == 39:  # behind the rollback, before the batch that is left out
            raise KeyboardInterrupt
        return spiked(step, loss)

    first.guard.spiked = killed  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        first.go()
    first.checkpointer.close()
    again = Run(tmp_path / "b", spoilt={37}).go()
    assert same(whole, again) and again.census.taken == whole.census.taken


# --- its end, and what it refuses ---------------------------------------------------------------------


def test_data_that_stays_bad_ends_in_an_error_after_so_many_rollbacks(tmp_path: Path) -> None:
    run = Run(tmp_path, spoilt=set(range(20, 60)), max_rollbacks=3)
    with pytest.raises(
        LossSpikeError, match=r"after 3 rollbacks in a row.*not a few bad batches.*tolerance="
    ):
        run.go()
    assert (run.guard.spikes, run.guard.rollbacks) == (4, 3) and LossSpikeError.final
    run.checkpointer.close()


def test_without_a_checkpoint_from_before_it_says_what_to_save(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.guard.spiked(7, math.nan)
    with pytest.raises(
        LossSpikeError, match=r"no checkpoint of step 7 or before.*checkpointer\.save\(0, state\)"
    ):
        run.guard.roll_back(run.checkpointer, run.state)
    with pytest.raises(ConfigError, match="there was no spike"):
        run.guard.roll_back(run.checkpointer, run.state)
    run.checkpointer.close()


def test_other_figures_are_watched_too_and_named() -> None:
    guard = edldist.SpikeGuard(Loader(3), window=5, least=2, tolerance=5.0)
    for step in range(3):
        assert not guard.spiked(step, torch.tensor(1.0), gradient=2.0)
    assert not guard.spiked(3, 1.0, gradient=0.0)
    assert guard.spiked(4, 1.0, gradient=50.0) and guard.spikes == 1
    assert guard.spiked(4, math.inf, gradient=2.0)


def test_a_batch_that_does_not_count_may_have_any_loss() -> None:
    loader = Loader(3)
    loader.loss_weight = 0.0
    assert not edldist.SpikeGuard(loader).spiked(0, math.nan)


def test_its_state_goes_through_a_restart_and_is_checked() -> None:
    guard, other = (edldist.SpikeGuard(Loader(3), window=5, least=2) for _ in range(2))
    for step in range(4):
        guard.spiked(step, 1.0)
    guard.spiked(4, math.nan)
    other.load_state_dict(guard.state_dict())
    assert other.state_dict() == guard.state_dict() and other.spikes == 1 and other.spiked(4, 100.0)
    for state in (
        {},
        {"recent": 3, "spikes": 0, "rollbacks": 0},
        {"recent": {}, "spikes": None, "rollbacks": 0},
    ):
        with pytest.raises(CheckpointError, match="no state of a SpikeGuard"):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, r"epochs=0\): use a whole number of 1 or more"),
        ({"window": 2.5}, r"window=2.5"),
        ({"least": 0}, r"least=0\): use a whole number from 1 to 100"),
        ({"window": 10}, r"least=20\): use a whole number from 1 to 10"),
        ({"tolerance": 0}, r"tolerance=0\): use a number above 0"),
        ({"tolerance": math.nan}, r"tolerance=nan"),
        ({"tolerance": True}, r"tolerance=True"),
        ({"max_rollbacks": 17}, r"max_rollbacks=17\): use a whole number from 1 to 16"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        edldist.SpikeGuard(Loader(3), **options)


@pytest.mark.parametrize("loader", [None, [1, 2], torch.utils.data.DataLoader([1, 2])])
def test_what_is_no_distill_loader_is_refused(loader: Any) -> None:
    with pytest.raises(ConfigError, match=rf"SpikeGuard\({type(loader).__name__}\).*DistillLoader"):
        edldist.SpikeGuard(loader)


def test_more_epochs_than_the_loader_has_are_refused() -> None:
    loader = Loader(3)
    loader.epochs = 2  # type: ignore[attr-defined]
    edldist.SpikeGuard(loader, epochs=2)
    with pytest.raises(ConfigError, match=r"epochs=3\): the loader has epochs=2"):
        edldist.SpikeGuard(loader, epochs=3)


def test_a_loop_that_forgets_to_roll_back_is_told() -> None:
    guard = edldist.SpikeGuard(Loader(3))
    with pytest.raises(ConfigError, match=r"loss nan after step 7 .* is not finite.*roll_back"):
        for _ in guard:
            guard.spiked(7, math.nan)


@pytest.mark.parametrize("step", ["3", None, 1.5, math.nan, -1, True])
def test_a_step_that_is_no_number_of_steps_is_refused(step: Any) -> None:
    with pytest.raises(InputError, match=r"spiked\(step=.*complete steps"):
        edldist.SpikeGuard(Loader(3)).spiked(step, 1.0)


@pytest.mark.parametrize("loss", ["high", "3", b"3", None, torch.zeros(2)])
def test_a_loss_that_is_no_number_is_refused(loss: Any) -> None:
    with pytest.raises(InputError, match=r"spiked\(loss=.*one number"):
        edldist.SpikeGuard(Loader(3)).spiked(0, loss)
