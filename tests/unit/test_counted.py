"""What a counted position keeps beside its count: generators, the layout of a stream, whose epoch it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from edldist.errors import CheckpointError, ConfigError
from edldist.sampling.counted import CountedPosition
from edldist.sampling.position import Mark

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on few processors


class Told(DataLoader[int]):
    """A data loader that counts its epochs, and can be told the one that is opened."""

    iteration = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


def test_a_data_loader_that_counts_epochs_is_told_which_one_is_opened() -> None:
    loader = Told(range(8), batch_size=4)
    position = CountedPosition(loader)
    position.set_epoch(5)
    position.start()
    assert loader.epoch == 5
    position.start_next()
    assert loader.epoch == 6


def test_what_is_skipped_is_read_with_the_numbers_of_its_place() -> None:
    """A data loader that draws as it reads goes on with what it would have drawn."""
    places: list[tuple[int, int]] = []
    before = CountedPosition([[n] for n in range(4)])
    consume(before, 2)
    position = CountedPosition([[n] for n in range(4)], lambda *place: places.append(place))
    position.load_state_dict(before.state_dict())
    for _ in position.start():
        pass
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(16))


def stream(num_workers: int, batch_size: int | None) -> CountedPosition:
    return CountedPosition(DataLoader(Stream(), batch_size=batch_size, num_workers=num_workers))


def behind_a_batch(position: CountedPosition) -> dict[str, Any]:
    position.consume(Mark(), 4)
    return position.state_dict()


@pytest.mark.parametrize(
    ("saved", "now"),
    [((0, 4), (2, 4)), ((2, 4), (0, 4)), ((2, 4), (3, 4)), ((2, 4), (2, 2)), ((2, None), (2, 4))],
)
def test_a_stream_that_comes_in_another_order_is_refused_behind_a_batch_of_it(saved: Any, now: Any) -> None:
    state = behind_a_batch(stream(*saved))
    size = saved[1] or 0
    with pytest.raises(
        CheckpointError,
        match=rf"behind 4 samples of epoch 0 of a stream .*num_workers={saved[0]} and batch_size={size}, "
        rf"and the data loader has num_workers={now[0]} and batch_size={now[1]}:",
    ):
        stream(*now).load_state_dict(state)


@pytest.mark.parametrize(("saved", "now"), [((2, 4), (2, 4)), ((0, 4), (0, 2)), ((1, 4), (1, None))])
def test_a_stream_that_comes_in_the_same_order_goes_on(saved: Any, now: Any) -> None:
    position = stream(*now)
    position.load_state_dict(behind_a_batch(stream(*saved)))
    assert position.samples == 4


def test_between_epochs_and_for_what_is_no_stream_its_layout_is_no_matter() -> None:
    position = stream(2, 4)
    position.consume(Mark(), 4)
    position.end_epoch()
    stream(0, 4).load_state_dict(position.state_dict())
    list_of_batches = CountedPosition([[0] * 4, [1] * 4])
    list_of_batches.load_state_dict(behind_a_batch(stream(2, 4)))
    stream(2, 4).load_state_dict(behind_a_batch(list_of_batches))


def shuffled(seed: int) -> CountedPosition:
    generator = torch.Generator().manual_seed(seed)
    return CountedPosition(DataLoader(range(64), batch_size=8, shuffle=True, generator=generator))


def rest(position: CountedPosition) -> list[list[int]]:
    """What is left of an epoch, which ends."""
    read = []
    for batch, mark in position.start():
        position.consume(mark, len(batch))
        read.append(batch.tolist())
    position.end_epoch()
    return read


def consume(position: CountedPosition, batches: int) -> None:
    source = position.start()
    for _ in range(batches):
        batch, mark = next(source)
        position.consume(mark, len(batch))


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say that this process is rank 1 of so many."""

    def become(world_size: int) -> None:
        monkeypatch.setenv("RANK", str(min(1, world_size - 1)))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))

    return become


@pytest.mark.parametrize(("batches", "where"), [(0, "the start of epoch 0"), (2, "batch 2 of epoch 0")])
def test_another_number_of_ranks_is_refused_with_where_that_is(ranks: Any, batches: int, where: str) -> None:
    position = CountedPosition(OwnState())
    consume(position, batches)
    state = position.state_dict()
    ranks(2)
    with pytest.raises(CheckpointError, match=rf"OwnState\), {where}, was saved by 1 rank"):
        CountedPosition(OwnState()).load_state_dict(state)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("batches", [0, 3])
def test_the_order_of_a_data_loaders_own_generator_goes_on_and_so_do_those_behind_it(
    ranks: Any, world_size: int, batches: int
) -> None:
    ranks(world_size)
    whole, position, restored = shuffled(1), shuffled(1), shuffled(2)
    rest(whole)
    rest(position)
    consume(position, batches)
    if not batches:
        position.set_epoch(1)  # as it was when the epoch began
    restored.load_state_dict(position.state_dict())
    restored.load_rank_state_dict(position.rank_state_dict())
    assert (position.rank_state_dict() is None) == (world_size == 1)
    assert [rest(restored), rest(restored)] == [rest(whole)[batches:], rest(whole)]


def test_between_epochs_it_is_kept_where_generators_are_and_not_where_they_were() -> None:
    ended, left, restored = shuffled(1), shuffled(1), shuffled(2)
    rest(ended)
    consume(left, 3)
    left.set_epoch(5)
    for position in (ended, left):
        restored.load_state_dict(position.state_dict())
        assert rest(restored) == rest(position)


def test_a_place_that_was_restored_is_saved_as_it_was_read() -> None:
    position, other, stateful = shuffled(1), shuffled(2), CountedPosition(OwnState())
    consume(position, 3)
    consume(other, 1)
    state = position.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["generators"][0], state["generators"][0])
    consume(stateful, 2)
    again = CountedPosition(OwnState())
    again.load_state_dict(stateful.state_dict())
    assert again.state_dict() == stateful.state_dict()


def test_an_epoch_that_is_left_early_does_not_end_where_it_had_ended_before() -> None:
    """As it does where it was read to its end before the loop went back to a place inside it."""
    for goes_back in (
        lambda position, _: position.set_epoch(0),
        lambda position, state: position.load_state_dict(state),
    ):
        position = CountedPosition(OwnState())
        source = position.start()
        batch, mark = next(source)
        position.consume(mark, len(batch))
        state = position.state_dict()
        assert len(list(source)) == 2
        goes_back(position, state)
        consume(position, 1)
        position.settle()
        assert (position.epoch, position.state_dict()["data_loader"]) == (1, None)


def test_generators_that_are_there_no_more_are_refused() -> None:
    plain = CountedPosition(DataLoader(range(64), batch_size=8))
    for batches in (0, 3):
        position = shuffled(1)
        consume(position, batches)
        with pytest.raises(CheckpointError, match=r"states of 1 random generator\(s\).* which has 0 now"):
            plain.load_state_dict(position.state_dict())
    rest(plain)
    assert "generators" not in plain.state_dict()


def test_an_epoch_that_is_named_begins_at_its_start_whatever_was_consumed_of_another() -> None:
    position = CountedPosition([[n] for n in range(4)])
    consume(position, 2)
    position.set_epoch(3)
    assert (position.epoch, position.samples) == (3, 0)
    assert [batch for batch, _ in position.start()] == [[0], [1], [2], [3]]
    position.set_epoch(1)
    position.start()
    assert position.epoch == 1, "it was not begun"


def test_the_epoch_that_runs_goes_on_when_it_is_named_and_the_next_one_ends_it() -> None:
    position = CountedPosition([[n] for n in range(4)])
    consume(position, 2)
    position.set_epoch(0)
    assert [batch for batch, _ in position.start()] == [[2], [3]]
    position.set_epoch(1)
    assert (position.epoch, position.samples) == (1, 0)


def test_a_place_that_lacks_the_part_of_its_rank_is_let_go_with_its_epoch(ranks: Any) -> None:
    ranks(2)
    position = CountedPosition([[n] for n in range(4)])
    consume(position, 2)
    restored = CountedPosition([[n] for n in range(4)])
    restored.load_state_dict(position.state_dict())
    restored.set_epoch(4)
    assert len(rest_of_lists(restored)) == 4


def rest_of_lists(position: CountedPosition) -> list[Any]:
    return [batch for batch, _ in position.start()]


def test_a_restored_place_is_where_it_was_whatever_was_read_before() -> None:
    position = CountedPosition([[n] for n in range(4)])
    state = position.state_dict()
    consume(position, 3)
    position.load_state_dict(state)
    assert (position.epoch, position.samples) == (0, 0)
    assert len(rest_of_lists(position)) == 4, "it was not begun"


class OwnState:
    """A data loader that says where it is."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Any:
        while self.at < 3:
            self.at += 1
            yield [self.at]
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def test_a_data_loader_with_a_state_goes_to_no_epoch_but_its_own_and_the_next() -> None:
    position = CountedPosition(OwnState())
    for epoch in (1, 2):
        with pytest.raises(ConfigError, match=rf"set_epoch\({epoch}\) in epoch 0: .*OwnState"):
            position.set_epoch(epoch)
    consume(position, 1)
    position.set_epoch(0)
    assert next(position.start())[0] == [2]
    position.set_epoch(1)
    assert position.epoch == 1


def test_who_consumes_is_told_how_much_that_was() -> None:
    assert CountedPosition([[0, 1, 2]]).consume(Mark(), 3) == 3


def test_batches_are_counted_anew_where_they_have_another_size_than_when_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = CountedPosition(DataLoader(range(8), batch_size=2), count=len)
    for _ in range(2):
        before.consume(Mark(), 2)
    same = CountedPosition(DataLoader(range(8), batch_size=2), count=len)
    larger = CountedPosition(DataLoader(range(8), batch_size=4), count=len)
    with caplog.at_level("INFO"):
        for position in (same, larger):
            position.load_state_dict(before.state_dict())
            assert [batch.tolist() for batch, _ in position.start()][0][0] == 4
    assert (same.state_dict()["batches"], larger.state_dict()["batches"]) == (2, 1)
    (said,) = [record.getMessage() for record in caplog.records if "goes on behind" in record.getMessage()]
    assert said == "epoch 0 goes on behind 4 samples: 1 batches of the data loader now, and 2 when saved"


def test_a_place_that_is_restored_into_an_epoch_that_runs_is_not_behind_it() -> None:
    position = CountedPosition([[0], [1], [2]])
    saved = position.state_dict()
    consume(position, 2)
    position.load_state_dict(saved)
    position.settle()
    assert (position.state_dict()["epoch"], position.state_dict()["batches"]) == (0, 0)
