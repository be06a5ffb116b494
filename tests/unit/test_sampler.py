"""The sequence of global batches depends on the seed alone, and every sample counts once."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from edldist.errors import CheckpointError, ConfigError
from edldist.lifecycle import exit_hooks
from edldist.sampling.sampler import ElasticSampler, Part


@pytest.fixture(autouse=True)
def no_ranks_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def global_batches(n: int, global_batch_size: int, epoch: int = 0, **options: Any) -> list[list[int]]:
    sampler = ElasticSampler(n, global_batch_size, rank=0, world_size=1, **options)
    sampler.set_epoch(epoch)
    return list(sampler)


@st.composite
def runs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a run, the epoch it is in, and two world sizes it may have."""
    n = draw(st.integers(1, 120))
    drop_last = draw(st.booleans())
    global_batch_size = draw(st.integers(1, n if drop_last else 150))
    world_sizes = st.integers(1, min(global_batch_size, 16))
    return {
        "settings": {
            "n": n,
            "global_batch_size": global_batch_size,
            "seed": draw(st.integers(-(2**70), 2**70)),
            "shuffle": draw(st.booleans()),
            "drop_last": drop_last,
        },
        "epoch": draw(st.integers(0, 10_000)),
        "world_size": draw(world_sizes),
        "resized_to": draw(world_sizes),
    }


def joined(samplers: list[ElasticSampler], steps: int | None = None) -> list[list[int]]:
    """Global batches as the union of the ranks' parts, in rank order, padding left out.

    Every rank advances as it would while training, up to ``steps``.
    """
    lists = [iter(sampler) for sampler in samplers]
    batches: list[list[int]] = []
    while len(samplers[0]) > 0 and (steps is None or len(batches) < steps):
        batch: list[int] = []
        sizes = []
        for sampler, iterator in zip(samplers, lists, strict=True):
            part = sampler.part(sampler.samples)
            indices = next(iterator)
            assert len(indices) == part.listed_samples
            batch += indices[: part.local_samples]
            sizes.append(part.local_samples)
            assert part.global_samples == samplers[0].part(samplers[0].samples).global_samples
        assert sum(sizes) == len(batch) == part.global_samples
        assert sizes == sorted(sizes, reverse=True) and sizes[0] - sizes[-1] <= 1
        batches.append(batch)
        for sampler in samplers:
            sampler.advance()
    if steps is None:
        assert all(next(iterator, None) is None for iterator in lists)
    return batches


def ranks(run: dict[str, Any], world_size: int) -> list[ElasticSampler]:
    samplers = [
        ElasticSampler(**run["settings"], rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    for sampler in samplers:
        sampler.set_epoch(run["epoch"])
    return samplers


class TestOrder:
    def test_is_pinned(self) -> None:
        """A change here would make every running job's resumed epoch repeat and miss samples."""
        assert global_batches(8, 8) == [[3, 2, 5, 1, 0, 6, 4, 7]]
        assert global_batches(8, 8, epoch=1) == [[3, 6, 4, 7, 0, 5, 2, 1]]
        (large,) = global_batches(100_003, 100_003, epoch=3, seed=-7)
        digest = hashlib.sha256(b"".join(index.to_bytes(8, "little") for index in large)).hexdigest()
        assert digest == "55a112c8388ab258b841b20d5bc527a0dceb2464f72e09df4ef19f307a42f0b6"

    def test_differs_between_epochs_and_seeds(self) -> None:
        seeds = (0, 1, 2, -1, 2**32, 2**33)
        orders = {
            tuple(global_batches(50, 50, epoch=epoch, seed=seed)[0]) for epoch in range(20) for seed in seeds
        }
        assert len(orders) == 20 * len(seeds)

    def test_leaves_the_global_generator_alone(self) -> None:
        before = torch.get_rng_state()
        global_batches(50, 7)
        assert torch.equal(torch.get_rng_state(), before)

    def test_is_made_on_the_cpu_whatever_the_default_device(self) -> None:
        expected = global_batches(8, 4), global_batches(8, 4, shuffle=False)
        with torch.device("meta"):
            assert (global_batches(8, 4), global_batches(8, 4, shuffle=False)) == expected

    def test_without_shuffling_is_that_of_the_data_set(self) -> None:
        assert global_batches(5, 2, epoch=4, shuffle=False) == [[0, 1], [2, 3], [4]]

    def test_drop_last_leaves_out_a_short_batch_only(self) -> None:
        assert global_batches(5, 2, drop_last=True) == global_batches(5, 2)[:2]
        assert global_batches(6, 2, drop_last=True) == global_batches(6, 2)


class TestGlobalBatches:
    @given(run=runs())
    def test_are_the_same_at_every_world_size_and_cover_the_epoch(self, run: dict[str, Any]) -> None:
        alone = global_batches(**run["settings"], epoch=run["epoch"])
        assert joined(ranks(run, run["world_size"])) == alone
        seen = [index for batch in alone for index in batch]
        assert len(seen) == len(set(seen)) == ranks(run, 1)[0].epoch_samples
        if not run["settings"]["drop_last"]:
            assert sorted(seen) == list(range(run["settings"]["n"]))

    @given(run=runs(), data=st.data())
    def test_survive_a_resize_inside_the_epoch(self, run: dict[str, Any], data: st.DataObject) -> None:
        alone = global_batches(**run["settings"], epoch=run["epoch"])
        steps = data.draw(st.integers(0, len(alone)))
        before = ranks(run, run["world_size"])
        first = joined(before, steps)
        after = [
            ElasticSampler(**run["settings"], rank=rank, world_size=run["resized_to"])
            for rank in range(run["resized_to"])
        ]
        for sampler in after:
            sampler.load_state_dict(before[-1].state_dict())
            sampler.set_epoch(run["epoch"])
        assert first + joined(after) == alone

    def test_rank_parts_by_hand(self) -> None:
        parts = [list(ElasticSampler(11, 8, shuffle=False, rank=rank, world_size=3)) for rank in range(3)]
        assert parts == [[[0, 1, 2], [8]], [[3, 4, 5], [9]], [[6, 7], [10]]]

    def test_a_rank_without_a_part_gets_padding(self) -> None:
        samplers = [ElasticSampler(6, 4, shuffle=False, rank=rank, world_size=4) for rank in range(4)]
        assert [list(sampler)[-1] for sampler in samplers] == [[4], [5], [4], [4]]
        parts = [sampler.part(4) for sampler in samplers]
        assert parts == [Part(4, 2, 1, 2.0), Part(5, 2, 1, 2.0), Part(4, 2, 0, 0.0), Part(4, 2, 0, 0.0)]
        assert [part.listed_samples for part in parts] == [1, 1, 1, 1]


class TestWeights:
    @given(run=runs())
    def test_sum_to_the_world_size_and_are_one_for_equal_parts(self, run: dict[str, Any]) -> None:
        samplers = ranks(run, run["world_size"])
        size = run["settings"]["global_batch_size"]
        for position in range(0, samplers[0].epoch_samples, size):
            parts = [sampler.part(position) for sampler in samplers]
            assert sum(part.weight for part in parts) == pytest.approx(run["world_size"], rel=1e-12)
            if parts[0].global_samples % run["world_size"] == 0:
                assert all(part.weight == 1.0 for part in parts)

    @given(run=runs())
    @settings(max_examples=30)
    def test_make_the_mean_of_rank_gradients_that_of_the_global_batch(self, run: dict[str, Any]) -> None:
        generator = torch.Generator().manual_seed(1)
        n = run["settings"]["n"]
        x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        y = torch.randn(n, generator=generator, dtype=torch.float64)
        w = torch.randn(3, generator=generator, dtype=torch.float64, requires_grad=True)

        def gradient(indices: list[int], weight: float = 1.0) -> Tensor:
            loss = weight * ((x[indices] @ w - y[indices]) ** 2).mean()
            return torch.autograd.grad(loss, w)[0]

        samplers = ranks(run, run["world_size"])
        lists = [list(sampler) for sampler in samplers]
        for step, batch in enumerate(global_batches(**run["settings"], epoch=run["epoch"])):
            position = step * run["settings"]["global_batch_size"]
            of_ranks = [
                gradient(lists[rank][step], sampler.part(position).weight)
                for rank, sampler in enumerate(samplers)
            ]
            torch.testing.assert_close(torch.stack(of_ranks).mean(0), gradient(batch), rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("position", [-4, 2, 8, 10, 12, 1.0, True])
    def test_are_refused_where_no_batch_starts(self, position: Any) -> None:
        sampler = ElasticSampler(8, 4)
        with pytest.raises(ConfigError, match="position="):
            sampler.part(position)


class TestPosition:
    def test_is_not_moved_by_iterating(self) -> None:
        sampler = ElasticSampler(10, 4)
        assert list(sampler) == list(sampler) and sampler.samples == 0

    def test_is_taken_when_iteration_starts(self) -> None:
        sampler = ElasticSampler(10, 4, shuffle=False)
        iterator = iter(sampler)
        sampler.advance()
        assert next(iterator) == [0, 1, 2, 3]
        assert next(iter(sampler)) == [4, 5, 6, 7]

    def test_advances_by_global_batches_to_the_end(self) -> None:
        sampler = ElasticSampler(10, 4)
        lengths = [len(sampler)]
        for _ in range(3):
            sampler.advance()
            lengths.append(len(sampler))
        assert lengths == [3, 2, 1, 0] and sampler.samples == 10
        assert sampler.batches_per_epoch == 3 and list(sampler) == []
        with pytest.raises(ConfigError, match=r"epoch 0 is at its end.*set_epoch\(1\)"):
            sampler.advance()

    def test_advances_by_a_count_of_samples(self) -> None:
        sampler = ElasticSampler(10, 4)
        sampler.advance(8)
        sampler.advance(0)
        assert sampler.samples == 8
        sampler.advance(2)
        assert sampler.samples == 10

    @pytest.mark.parametrize("samples", [-4, 3, 9, 12, 2.0, "4", False])
    def test_refuses_a_count_that_ends_inside_a_batch_or_past_the_epoch(self, samples: Any) -> None:
        sampler = ElasticSampler(10, 4)
        with pytest.raises(ConfigError, match="samples="):
            sampler.advance(samples)
        assert sampler.samples == 0

    def test_ends_early_with_drop_last(self) -> None:
        sampler = ElasticSampler(10, 4, drop_last=True)
        assert (sampler.epoch_samples, len(sampler), sampler.batches_per_epoch) == (8, 2, 2)
        sampler.advance(8)
        assert len(sampler) == 0
        with pytest.raises(ConfigError, match="at its end"):
            sampler.advance()

    def test_is_kept_by_the_same_epoch_and_reset_by_another(self) -> None:
        sampler = ElasticSampler(10, 4)
        sampler.advance()
        sampler.set_epoch(0)
        assert (sampler.epoch, sampler.samples) == (0, 4)
        sampler.set_epoch(3)
        assert (sampler.epoch, sampler.samples) == (3, 0)

    @pytest.mark.parametrize("epoch", [-1, 1.0, "1", None, True])
    def test_refuses_a_bad_epoch(self, epoch: Any) -> None:
        with pytest.raises(ConfigError, match="epoch="):
            ElasticSampler(10, 4).set_epoch(epoch)


class TestState:
    def test_holds_the_position_and_no_world_size(self) -> None:
        sampler = ElasticSampler(10, 4, seed=5, rank=1, world_size=2)
        sampler.set_epoch(2)
        sampler.advance()
        assert sampler.state_dict() == {
            "epoch": 2,
            "samples": 4,
            "n": 10,
            "global_batch_size": 4,
            "seed": 5,
            "shuffle": True,
            "drop_last": False,
        }

    @pytest.mark.parametrize("samples", [0, 4, 8, 10])
    def test_restores_on_every_boundary(self, samples: int) -> None:
        sampler = ElasticSampler(10, 4)
        sampler.load_state_dict({**sampler.state_dict(), "epoch": 6, "samples": samples})
        assert (sampler.epoch, sampler.samples) == (6, samples)

    @pytest.mark.parametrize(
        ("key", "value"),
        [("n", 11), ("global_batch_size", 5), ("seed", 1), ("shuffle", False), ("drop_last", True)],
    )
    def test_refuses_other_settings_and_names_both_values(self, key: str, value: Any) -> None:
        sampler = ElasticSampler(10, 4)
        ours = sampler.state_dict()
        with pytest.raises(CheckpointError, match=f"{key}={value}.*{key}={ours[key]}"):
            sampler.load_state_dict({**ours, "epoch": 3, key: value})
        assert sampler.state_dict() == ours

    @pytest.mark.parametrize(
        ("key", "value"),
        [("samples", 3), ("samples", 12), ("samples", -4), ("samples", 4.0), ("epoch", -1), ("epoch", None)],
    )
    def test_refuses_a_damaged_position(self, key: str, value: Any) -> None:
        sampler = ElasticSampler(10, 4)
        ours = sampler.state_dict()
        with pytest.raises(CheckpointError, match=f"{key}={value}"):
            sampler.load_state_dict({**ours, key: value})
        assert sampler.state_dict() == ours

    @pytest.mark.parametrize(
        "key", ["epoch", "samples", "n", "global_batch_size", "seed", "shuffle", "drop_last"]
    )
    def test_refuses_a_state_that_lacks_a_key(self, key: str) -> None:
        sampler = ElasticSampler(10, 4)
        state = sampler.state_dict()
        del state[key]
        with pytest.raises(CheckpointError, match=rf"lacks \['{key}'\]"):
            sampler.load_state_dict(state)


class TestPlacement:
    def test_alone_without_any_hint(self) -> None:
        sampler = ElasticSampler(10, 4)
        assert (sampler.rank, sampler.world_size) == (0, 1)

    def test_follows_the_environment_at_each_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sampler = ElasticSampler(10, 4, shuffle=False)
        assert next(iter(sampler)) == [0, 1, 2, 3]
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert (sampler.rank, sampler.world_size) == (1, 2)
        assert next(iter(sampler)) == [2, 3]
        monkeypatch.setenv("WORLD_SIZE", "5")
        with pytest.raises(ConfigError, match="global_batch_size=4 .*world_size=5 .*at least 5.*at most 4"):
            iter(sampler)

    def test_prefers_the_process_group_to_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "1")
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
        sampler = ElasticSampler(10, 4)
        assert (sampler.rank, sampler.world_size) == (2, 3)

    def test_prefers_what_it_was_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RANK", "nonsense")
        monkeypatch.setenv("WORLD_SIZE", "7")
        sampler = ElasticSampler(10, 4, rank=1, world_size=2)
        assert (sampler.rank, sampler.world_size) == (1, 2)

    @pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
    def test_refuses_nonsense_in_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "two")
        with pytest.raises(ConfigError, match=f"{variable}='two'"):
            ElasticSampler(10, 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 0}, "n=0 must be at least 1"),
        ({"n": 10.0}, "n=10.0 must be an integer"),
        ({"n": True}, "n=True"),
        ({"global_batch_size": 0}, "global_batch_size=0"),
        ({"global_batch_size": None}, "global_batch_size=None"),
        ({"seed": 0.5}, "seed=0.5"),
        ({"global_batch_size": 2, "rank": 0, "world_size": 3}, "global_batch_size=2 .*world_size=3 ranks"),
        ({"rank": 2, "world_size": 2}, "rank=2 is outside world_size=2"),
        ({"rank": -1, "world_size": 2}, "rank=-1"),
        ({"rank": 1}, "rank=1 is outside world_size=1"),
        ({"rank": 0, "world_size": 0}, "world_size=0"),
        ({"n": 3, "drop_last": True}, "drop_last=True leaves nothing of n=3 .*global_batch_size=4"),
    ],
)
def test_refuses_settings_that_cannot_work(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ElasticSampler(**{"n": 10, "global_batch_size": 4, **options})


def test_it_is_counted_how_often_any_is_iterated() -> None:
    """So that one is seen that is hidden inside a data loader."""
    first, second = ElasticSampler(8, 4), ElasticSampler(8, 4)
    before = ElasticSampler.iterated()
    iter(first)
    iter(second)
    assert ElasticSampler.iterated() == before + 2


def test_a_process_that_makes_one_ends_as_one_that_uses_edldist(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[bool] = []
    monkeypatch.setattr(exit_hooks, "install", lambda: installed.append(True))
    ElasticSampler(8, 4)
    assert installed


@pytest.mark.parametrize("num_workers", [0, 2])
def test_drives_a_data_loader_from_a_position_on(num_workers: int) -> None:
    sampler = ElasticSampler(22, 4, seed=3, rank=1, world_size=2)
    expected = list(sampler)
    loader = DataLoader(TensorDataset(torch.arange(22)), batch_sampler=sampler, num_workers=num_workers)
    assert len(loader) == 6
    assert [batch.tolist() for (batch,) in loader] == expected
    sampler.advance(8)
    assert len(loader) == 4
    assert [batch.tolist() for (batch,) in loader] == expected[2:]
