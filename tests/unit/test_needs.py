"""What a student tells of its needs: what its loop would take if it never waited, and how far its labels
are."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edldist.student.service.job.needs import LEAST_LOOKS, Backlog, Hunger, Needs
from edldist.wire.messages import Need


class Loop:
    """A training loop whose steps take a while, and that waits for labels before each.

    The hunger looks at it once a second.
    """

    def __init__(self, step_s: float, wait_s: float = 0.0, batch: int = 32, noise: float = 0.0) -> None:
        self.step_s, self.wait_s, self.batch, self.noise = step_s, wait_s, batch, noise
        self.hunger = Hunger()
        self.rng = random.Random(3)
        self.now = self._free_at = 0.0
        self.batches = 0
        self.starved_s = 0.0

    @property
    def truth(self) -> float:
        return self.batch / self.step_s

    def live(self, seconds: float) -> float | None:
        for _ in range(int(seconds)):
            self.now += 1.0
            while self._free_at + self.wait_s <= self.now:
                self.starved_s += self.wait_s
                self.batches += 1
                self._free_at += self.wait_s + self.step_s * (1 + self.noise * self.rng.uniform(-1, 1))
            waiting_s = max(0.0, self.now - self._free_at) if self.wait_s else 0.0
            self.hunger.see(self.now, self.batches, self.batch * self.batches, self.starved_s + waiting_s)
        return self.hunger.value

    def pause(self, seconds: float) -> None:
        self._free_at += seconds


class TestHunger:
    @pytest.mark.parametrize("step_s", [0.01, 0.3, 0.7, 1.0, 2.5, 5.0])
    @pytest.mark.parametrize("waits", [0.0, 1.0, 9.0])
    def test_does_not_depend_on_how_long_the_loop_waits(self, step_s: float, waits: float) -> None:
        loop = Loop(step_s, wait_s=waits * step_s, noise=0.1)
        assert loop.live(400 * max(1.0, step_s)) == pytest.approx(loop.truth, rel=0.12)
        assert loop.hunger.starved == pytest.approx(waits / (1 + waits), abs=0.1)

    def test_is_unknown_until_the_loop_took_some_batches(self) -> None:
        hunger = Hunger()
        hunger.see(0.0, 0, 0, 0.0)
        for second in range(1, LEAST_LOOKS):
            hunger.see(float(second), second, 32 * second, 0.0)
            assert hunger.value is None and hunger.starved is None
        hunger.see(float(LEAST_LOOKS), LEAST_LOOKS, 32 * LEAST_LOOKS, 0.0)
        assert hunger.value == 32.0 and hunger.starved == 0.0

    def test_a_change_shows_whole_after_ten_seconds(self) -> None:
        loop = Loop(0.1)
        loop.live(100)
        loop.step_s = 0.05
        assert loop.live(4) != pytest.approx(loop.truth, rel=0.2)
        assert loop.live(8) == pytest.approx(loop.truth, rel=0.02)

    def test_of_slow_steps_twenty_count_but_no_more_than_a_minute(self) -> None:
        loop = Loop(2.0)
        loop.live(200)
        loop.step_s = 1.0
        assert loop.live(15) != pytest.approx(loop.truth, rel=0.1)
        assert loop.live(10) == pytest.approx(loop.truth, rel=0.1)
        loop.step_s = 6.0
        assert loop.live(70) == pytest.approx(loop.truth, rel=0.1)

    @pytest.mark.parametrize("pause_s", [15.0, 300.0])
    def test_an_evaluation_is_no_step(self, pause_s: float) -> None:
        loop = Loop(0.5)
        loop.live(60)
        loop.pause(pause_s)
        for _ in range(int(pause_s) + 60):
            assert loop.live(1) == pytest.approx(loop.truth, rel=0.25)

    def test_a_step_that_is_long_as_all_are_is_one(self) -> None:
        loop = Loop(20.0)
        assert loop.live(400) == pytest.approx(loop.truth, rel=0.1)

    def test_waiting_for_long_is_no_pause(self) -> None:
        loop = Loop(0.5)
        loop.live(60)
        loop.wait_s = 30.0
        loop.live(300)
        assert loop.hunger.starved == pytest.approx(30 / 30.5, abs=0.02)

    def test_one_long_wait_among_steps_is_no_pause(self) -> None:
        hunger = Hunger()
        for second in range(11):
            hunger.see(float(second), second + 1, 32 * (second + 1), 0.0)
        hunger.see(60.0, 12, 32 * 12, 49.0)
        assert hunger.starved == pytest.approx(49 / 60) and hunger.value == pytest.approx(32.0)

    @pytest.mark.parametrize(("own_s", "is_pause"), [(9.5, False), (10.2, True)])
    def test_a_pause_is_told_by_the_time_since_the_last_look(self, own_s: float, is_pause: bool) -> None:
        """In each second half of it was spent waiting."""
        hunger = Hunger()
        for second in range(11):
            hunger.see(float(second), second + 1, 32 * (second + 1), 0.5 * second)
        before = hunger.value
        hunger.see(10.0 + own_s, 12, 32 * 12, 5.0)
        assert (hunger.value == before) == is_pause, "a step of that length counts, and a pause does not"

    def test_a_pause_after_long_waits_is_one(self) -> None:
        hunger = Hunger()
        for look in range(11):
            hunger.see(10.0 * look, look + 1, 32 * (look + 1), 9.0 * look)
        assert hunger.value == pytest.approx(32.0)
        hunger.see(300.0, 12, 32 * 12, 90.0)
        for look in range(1, 6):
            hunger.see(300.0 + 10.0 * look, 12 + look, 32 * (12 + look), 90.0 + 9.0 * look)
        assert hunger.value == pytest.approx(32.0), "nothing of the pause counts"

    def test_another_loop_counts_from_nothing(self) -> None:
        loop = Loop(0.1)
        loop.live(60)
        loop.batches, loop.starved_s = 0, 0.0
        loop.step_s = 1.0
        loop.live(LEAST_LOOKS + 1)
        assert loop.hunger.value == pytest.approx(loop.truth)

    def test_a_loop_that_does_nothing_but_wait_is_not_endlessly_hungry(self) -> None:
        hunger = Hunger()
        for second in range(1, 30):
            hunger.see(float(second), second, second, float(second))
        assert hunger.value == pytest.approx(100.0)


class TestNeeds:
    STATS = {"batches": 10, "samples": 320, "starved_s": 0.0, "done": 3}

    def backlog(self, samples: int = 64, **wanted: int) -> Backlog:
        lacking = {group: Counter({1: 8} if count else {}) for group, count in wanted.items()}
        return Backlog(2 if samples else 0, samples, wanted, lacking)

    def run(self, needs: Needs, backlog: Backlog, seconds: int = 20) -> dict[str, Need]:
        for second in range(1, seconds):
            stats = {"batches": second, "samples": 32 * second, "starved_s": 0.0}
            told = needs.told(float(second), stats, backlog)
        return {need.group: need for need in told}

    def test_are_told_of_every_group(self) -> None:
        needs = Needs(["a", "b"])
        told = self.run(needs, self.backlog(a=64, b=0))
        assert told["a"] == Need(group="a", hunger=32.0, lacking=8, buffered=1)
        assert told["b"] == Need(group="b", hunger=0.0, lacking=0, buffered=2), "it needs nothing of it"
        assert needs.starved == 0.0

    def test_what_is_not_counted_is_not_taken_in(self) -> None:
        needs = Needs(["a"])
        for second in range(20):
            (told,) = needs.told(float(second), {"batches": second, "samples": "many"}, self.backlog(a=64))
        assert told.hunger is None and told.lacking == 8

    def test_a_group_that_labels_a_part_of_the_samples_is_asked_for_that_part(self) -> None:
        told = self.run(Needs(["a", "b"]), self.backlog(a=48, b=16))
        assert told["a"].hunger == pytest.approx(24.0) and told["b"].hunger == pytest.approx(8.0)

    def test_a_group_of_which_all_labels_are_found_is_not_needed_any_more(self) -> None:
        needs = Needs(["a"])
        assert self.run(needs, self.backlog(a=64))["a"].hunger == 32.0
        first = self.run(needs, self.backlog(a=0))["a"]
        assert first.hunger is not None and 0 < first.hunger < 10.0
        assert self.run(needs, self.backlog(a=0), 60)["a"].hunger == 0.0

    def test_a_group_that_labels_one_sample_in_a_hundred_is_needed_and_no_smaller_part(self) -> None:
        told = self.run(
            Needs(["a", "b"]), Backlog(2, 1000, {"a": 10, "b": 9}, {"a": Counter(), "b": Counter()})
        )
        assert told["a"].hunger == pytest.approx(0.32) and told["b"].hunger == 0.0

    def test_the_part_is_that_of_many_looks(self) -> None:
        needs = Needs(["a", "b"])
        self.run(needs, self.backlog(a=64, b=0))
        assert needs.told(21.0, {}, self.backlog(a=0, b=64))[0].hunger == pytest.approx(32 * 0.9)

    def test_without_open_batches_the_part_is_as_before(self) -> None:
        needs = Needs(["a"])
        self.run(needs, self.backlog(a=32))
        assert needs.told(21.0, {}, self.backlog(0, a=0))[0].hunger == pytest.approx(16.0)
        assert self.run(Needs(["a"]), self.backlog(0, a=0))["a"].hunger == 32.0

    def test_before_the_loop_begins_nobody_knows_what_it_takes(self) -> None:
        (need,) = Needs(["a"]).told(1.0, {}, self.backlog(a=64))
        assert need == Need(group="a", hunger=None, lacking=8, buffered=1)
