"""The position is what the loop consumed: never what was read ahead, and restored exactly."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch.utils.data import DataLoader

from edldist.errors import CheckpointError, ConfigError, InputError
from edldist.sampling.choice import position_of
from edldist.sampling.counted import CountedPosition
from edldist.sampling.sampled import SampledPosition
from edldist.sampling.sampler import ElasticSampler


def sampled(n: int = 20, global_batch_size: int = 6, **placement):
    sampler = ElasticSampler(n, global_batch_size, seed=3, **placement)
    return position_of(DataLoader(list(range(n)), batch_sampler=sampler)), sampler


def run(position, batches: int | None = None, ahead: int = 3) -> list[list[int]]:
    """Consume some batches, reading ahead like the loader; all of them ends the epoch."""
    source, read, consumed = position.start(), [], []
    while True:
        while len(read) < ahead and (item := next(source, None)) is not None:
            read.append(item)
        if batches is not None and len(consumed) == batches:
            return consumed
        if not read:
            position.end_epoch()
            return consumed
        batch, mark = read.pop(0)
        position.consume(mark, len(batch))
        consumed.append(torch.as_tensor(batch).tolist())


def saved(position) -> dict:
    return json.loads(json.dumps(position.state_dict()))


@pytest.mark.parametrize("consumed", [0, 1, 2, 3, 4])
def test_a_sampler_resumes_behind_the_consumed_batches(consumed):
    position, _ = sampled()
    run(position)
    whole = run(sampled_at(position))
    part, _ = sampled()
    run(part)
    head = run(part, consumed)
    assert head == whole[:consumed]
    assert part.state_dict()["sampler"]["samples"] == min(20, consumed * 6)
    restored, _ = sampled()
    restored.load_state_dict(saved(part))
    assert restored.epoch == 1
    assert head + run(restored) == whole
    assert restored.epoch == 2


def sampled_at(position):
    other, _ = sampled()
    other.load_state_dict(saved(position))
    return other


def test_leaving_early_goes_on_with_the_next_epoch():
    for position in (sampled()[0], CountedPosition([[n] for n in range(5)])):
        run(position, 2)
        assert position.epoch == 0
        run(position)
        assert position.epoch == 2


def test_an_epoch_set_by_the_script_is_the_one_that_runs():
    position, sampler = sampled()
    run(position, 1)
    sampler.set_epoch(5)
    run(position, 1)
    assert position.epoch == 5


def test_padding_counts_for_nothing_and_parts_weigh_their_share():
    positions = [sampled(n=5, global_batch_size=4, rank=rank, world_size=3)[0] for rank in range(3)]
    weighed = []
    for position in positions:
        marks = [(mark, len(batch)) for batch, mark in position.start()]
        weighed.append([(position.consume(mark, n), mark.part.weight) for mark, n in marks])
        assert position.state_dict()["sampler"]["samples"] == 5
    assert weighed == [[(2, 6 / 4), (1, 3.0)], [(1, 3 / 4), (0, 0.0)], [(1, 3 / 4), (0, 0.0)]]


@pytest.mark.parametrize("consumed", [0, 2, 5])
def test_a_plain_iterable_is_skipped_to_its_place(consumed):
    data = [[n] * (n + 1) for n in range(5)]
    position = CountedPosition(data)
    run(position)
    run(position, consumed)
    assert position.state_dict() == {
        "epoch": 1,
        "batches": consumed,
        "samples": sum(len(batch) for batch in data[:consumed]),
        "world_size": 1,
    }
    restored = CountedPosition(data)
    restored.load_state_dict(saved(position))
    assert run(restored) == data[consumed:]
    assert run(restored) == data
    assert restored.epoch == 3


def test_a_data_loader_that_became_shorter_cannot_be_resumed():
    position = CountedPosition([[0]] * 4)
    run(position, 3)
    shorter = CountedPosition([[0]] * 2)
    shorter.load_state_dict(saved(position))
    with pytest.raises(CheckpointError, match=r"behind 3 samples \(3 batches\) of epoch 0.*ended after 2"):
        shorter.start()


def numbers(batch_size: int, n: int = 24) -> DataLoader:
    return DataLoader(list(range(n)), batch_size=batch_size, shuffle=True)


class Seeded:
    """Reads a shuffling data loader with the numbers of its epoch and place, as ``DataDraws`` does."""

    def __call__(self, epoch: int, place: int) -> None:
        torch.manual_seed(1000 * epoch + place)


def resumed(position, batch_size: int):
    other = CountedPosition(numbers(batch_size), Seeded())
    other.load_state_dict(saved(position))
    return other


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_resume_with_another_batch_size_goes_on_behind_the_very_samples(batch_size, epoch):
    whole = CountedPosition(numbers(4), Seeded())
    position = CountedPosition(numbers(4), Seeded())
    for each in (whole, position)[: 2 * epoch]:
        run(each)
    head = run(position, 3)
    other = resumed(position, batch_size)
    assert sum(head + run(other), []) == sum(run(whole), [])
    assert other.epoch == epoch + 1


@pytest.mark.parametrize("batch_size", [8, 12, 24])
def test_a_resume_behind_the_last_sample_of_an_epoch_has_nothing_left_in_larger_batches(batch_size):
    whole, position = CountedPosition(numbers(4), Seeded()), CountedPosition(numbers(4), Seeded())
    everything = run(whole)
    assert run(position, len(everything)) == everything  # and the loop is left before it asks for more
    other = resumed(position, batch_size)
    assert run(other) == []
    assert other.epoch == 1


@pytest.mark.parametrize(
    ("batch_size", "ends"), [(5, "10 and at 15"), (8, "8 and at 16"), (24, "0 and at 24")]
)
def test_a_batch_size_with_which_samples_would_be_lost_or_repeated_is_refused(batch_size, ends):
    position = CountedPosition(numbers(4), Seeded())
    run(position, 3)
    other = resumed(position, batch_size)
    with pytest.raises(CheckpointError, match=f"end at {ends} samples.*one that divides 12"):
        other.start()


@pytest.mark.parametrize("consumed", range(6))
def test_batches_without_samples_are_skipped_as_often_as_they_were_consumed(consumed):
    data = [[0, 1], [], [], [2, 3], []]
    position = CountedPosition(data)
    run(position, min(consumed, 5))
    other = CountedPosition(data)
    other.load_state_dict(saved(position))
    assert run(other) == data[consumed:]


class StatefulLoader:
    """A stream of rounds of six, whose one state is changed by reading on, after it was given back too.

    ``shard`` tells whose it is.
    """

    def __init__(self, shard: int = 0) -> None:
        self.state = {"round": 0, "at": 0, "shard": [shard]}

    def __iter__(self):
        while self.state["at"] < 6:
            self.state["at"] += 1
            yield [100 * self.state["shard"][0] + 10 * self.state["round"] + self.state["at"] - 1]
        self.state["at"] = 0
        self.state["round"] += 1

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def plain(epochs: int, shard: int = 0) -> list[list[int]]:
    """What a loop without anything ahead sees."""
    loader = StatefulLoader(shard)
    return [batch for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("consumed", range(13))
def test_a_stateful_loader_is_restored_to_what_was_consumed_between_two_epochs_too(consumed):
    position = position_of(StatefulLoader())
    head = []
    for _ in range(consumed // 6):
        head += run(position, ahead=4)
    if consumed % 6:
        head += run(position, consumed % 6, ahead=4)
    restored = position_of(StatefulLoader())
    restored.load_state_dict(saved(position))
    tail = [batch for _ in range(3 - consumed // 6) for batch in run(restored, ahead=4)]
    assert head + tail == plain(3)


def test_the_state_of_a_loader_is_a_copy_and_reading_on_changes_nothing_in_it():
    position = position_of(StatefulLoader())
    source = position.start()
    marks = [next(source)[1] for _ in range(5)]
    for mark in marks[:2]:
        position.consume(mark, 1)
    state = position.state_dict()
    list(source)
    assert state["data_loader"] == {"round": 0, "at": 2, "shard": [0]}
    other = position_of(StatefulLoader())
    other.load_state_dict(state)
    run(other)
    assert state["data_loader"] == {"round": 0, "at": 2, "shard": [0]}


def test_a_stateful_loader_goes_back_to_the_start_of_its_life():
    position = position_of(StatefulLoader())
    state = saved(position)
    run(position)
    position.load_state_dict(state)
    assert run(position) == plain(1)
    moved = position_of(StatefulLoader())
    moved.load_state_dict(saved(position))
    with pytest.raises(CheckpointError, match="before the first batch.*make a new data loader"):
        moved.load_state_dict(state)


def test_the_state_at_the_start_of_an_epoch_is_that_of_the_open_epoch():
    """Left early, the next epoch begins where the data loader is, and so does a restore of it."""
    position = position_of(StatefulLoader())
    run(position, 2, ahead=4)
    source = position.start()
    state = saved(position)
    rest = [batch for batch, _ in source]
    restored = position_of(StatefulLoader())
    restored.load_state_dict(state)
    assert [batch for batch, _ in restored.start()] == rest


@pytest.fixture
def ranks(monkeypatch):
    """Say which rank of how many this process is."""

    def become(rank: int, world_size: int) -> None:
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world_size))

    return become


@pytest.mark.parametrize("batches", [None, 2, 5])
def test_each_rank_goes_on_with_its_own_part_of_a_stateful_loader(ranks, batches):
    states = []
    for rank in range(2):
        ranks(rank, 2)
        position = position_of(StatefulLoader(rank))
        run(position, batches)
        states.append((saved(position), position.rank_state_dict()))
    assert states[0][0] == states[1][0]
    common = states[0][0]
    for rank in range(2):
        ranks(rank, 2)
        restored = position_of(StatefulLoader(rank))
        restored.load_state_dict(common)
        restored.load_rank_state_dict(states[rank][1])
        assert run(restored) == plain(2, rank)[batches or 6 : 6 if batches else None]


@pytest.mark.parametrize(
    ("make", "batches"), [(StatefulLoader, None), (StatefulLoader, 3), (lambda: numbers(4), 3)]
)
@pytest.mark.parametrize("worlds", [(1, 2), (2, 1), (2, 4)])
def test_places_of_other_ranks_are_refused(ranks, make, batches, worlds):
    ranks(0, worlds[0])
    position = position_of(make())
    run(position, batches)
    state = saved(position)
    ranks(0, worlds[1])
    other = position_of(make())
    with pytest.raises(
        CheckpointError, match=rf"by {worlds[0]} rank\(s\).*there are {worlds[1]} now. Go on with"
    ):
        other.load_state_dict(state)


def test_between_epochs_any_number_of_ranks_goes_on_with_a_plain_loader(ranks):
    position = position_of(numbers(4))
    run(position)
    state = saved(position)
    ranks(1, 2)
    other = position_of(numbers(4))
    other.load_state_dict(state)
    other.load_rank_state_dict(None)
    assert (other.epoch, len(run(other))) == (1, 6)


def test_a_place_without_the_part_of_this_rank_is_refused(ranks):
    ranks(1, 2)
    position = position_of(numbers(4))
    run(position, 2)
    other = position_of(numbers(4))
    other.load_state_dict(saved(position))
    for refused in (lambda: other.load_rank_state_dict(None), other.start):
        with pytest.raises(CheckpointError, match="batch 2 of epoch 0.* lacks the part of rank 1.*by hand"):
            refused()
    other.load_rank_state_dict(position.rank_state_dict())
    assert len(run(other)) == 4


# --- ElasticSampler: what a batch is made of it ---------------------------------------------------


def filtered(keep: int, world_size: int, agreed: bool = False):
    sampler = ElasticSampler(12, 4 * world_size, rank=0, world_size=world_size)
    loader = DataLoader(list(range(12)), batch_sampler=sampler, collate_fn=lambda items: items[:keep])
    return position_of(loader, weights_agreed=agreed), sampler


@pytest.mark.parametrize(("world_size", "agreed"), [(1, False), (3, True)])
def test_samples_that_a_collate_function_leaves_out_do_not_count_and_that_is_said(world_size, agreed, caplog):
    position, sampler = filtered(1, world_size, agreed)
    marked = list(position.start())
    for batch, mark in marked:
        position.check(mark, len(batch))
        assert position.consume(mark, len(batch)) == 1
    assert sampler.samples == 12
    (message,) = caplog.messages
    assert "a batch of 1 samples out of 4 indices" in message


def test_samples_that_are_left_out_are_refused_where_the_weights_of_other_ranks_depend_on_them():
    position, _ = filtered(3, world_size=3)
    batch, mark = next(position.start())
    with pytest.raises(InputError, match=r"3 samples out of 4 indices.*agree_weights=True"):
        position.check(mark, len(batch))


def test_several_views_of_each_sample_are_as_good_as_one():
    sampler = ElasticSampler(11, 4, rank=0, world_size=2)
    loader = DataLoader(list(range(11)), batch_sampler=sampler, collate_fn=lambda items: 3 * items)
    position = position_of(loader)
    counted = []
    for batch, mark in position.start():
        position.check(mark, len(batch))
        counted.append(position.consume(mark, len(batch)))
    assert counted == [2, 2, 2]


class Wrapped:
    """Holds another under some name."""

    def __init__(self, name: str, inner, **more) -> None:
        self.__dict__ |= {name: inner, **more}
        self.__iter = inner

    def __iter__(self):
        return iter(self.__iter)

    def __len__(self) -> int:
        return len(self.__iter)


def elastic() -> ElasticSampler:
    return ElasticSampler(20, 6, seed=3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: DataLoader(range(20), batch_sampler=Wrapped("batch_sampler", s)),
        lambda s: DataLoader(range(20), batch_sampler=Wrapped("sampler", Wrapped("sampler", s))),
        lambda s: DataLoader(list(range(20)), batch_sampler=Wrapped("batch_sampler", s, num_processes=1)),
        lambda s: Wrapped("loader", DataLoader(range(20), batch_sampler=s)),
        lambda s: Wrapped("_dataloader", Wrapped("base_dataloader", DataLoader(range(20), batch_sampler=s))),
    ],
    ids=["sampler", "samplers", "one process", "loader", "loaders"],
)
def test_an_elastic_sampler_is_found_behind_what_wraps_it(wrap):
    sampler, reference = elastic(), elastic()
    position = position_of(wrap(sampler))
    orders = []
    for epoch in range(2):
        reference.set_epoch(epoch)
        orders.append(run(position))
        assert orders[-1] == list(reference)
    assert orders[0] != orders[1]


def test_an_elastic_sampler_that_nothing_leads_to_is_noticed_when_it_is_read():
    class Closed:
        def __init__(self) -> None:
            inner = DataLoader(range(20), batch_sampler=elastic())
            self.open = lambda: iter(inner)

        def __iter__(self):
            return self.open()

    class Lazy(Closed):
        def __iter__(self):
            yield from self.open()

    for kind in (Closed, Lazy):
        with pytest.raises(
            ConfigError, match=f"{kind.__name__}.* hidden inside it.*batch_sampler, or loader"
        ):
            run(position_of(kind()))


@pytest.mark.parametrize("moment", ["opened", "between"])
def test_an_elastic_sampler_beside_the_data_loader_is_not_in_it(moment):
    position = position_of([[0], [1]])
    if moment == "opened":
        position.start()
    list(elastic())
    assert run(position) == [[0], [1]]


def test_a_sampler_is_not_dealt_to_the_ranks_twice():
    loader = DataLoader(range(20), batch_sampler=Wrapped("batch_sampler", elastic(), num_processes=2))
    with pytest.raises(ConfigError, match=r"batch sampler \(Wrapped\) deals to 2 ranks"):
        position_of(loader)


def test_lists_of_an_elastic_sampler_are_not_merged():
    with pytest.raises(ConfigError, match="pass it as batch_sampler="):
        position_of(DataLoader(range(20), sampler=elastic(), batch_size=2))


def test_a_data_loader_that_ends_before_its_sampler_says_so(caplog):
    class Short(DataLoader):
        def __iter__(self):
            return itertools.islice(super().__iter__(), 2)

    position = position_of(Short(range(20), batch_sampler=elastic()))
    assert [len(run(position)) for _ in range(2)] == [2, 2]
    assert caplog.messages[0].startswith("the data loader ended epoch 0 at 12 of the 20")


def test_the_kind_of_position_follows_the_sampler():
    assert isinstance(sampled()[0], SampledPosition)
    assert isinstance(position_of([1, 2]), CountedPosition)
    assert isinstance(position_of(DataLoader([1, 2])), CountedPosition)


def test_a_state_of_another_kind_of_loader_is_refused():
    with pytest.raises(CheckpointError, match="lacks 'sampler'.*epoch, batches, world_size, samples"):
        sampled()[0].load_state_dict(CountedPosition([]).state_dict())
    with pytest.raises(CheckpointError, match="lacks 'epoch'"):
        CountedPosition([]).load_state_dict(sampled()[0].state_dict())


def test_a_stateful_loader_resumes_in_the_epoch_that_is_named_and_goes_to_no_other():
    whole = run(position_of(StatefulLoader()))
    position = position_of(StatefulLoader())
    head = run(position, 2)
    position.set_epoch(0)
    assert head + run(position) == whole
    with pytest.raises(ConfigError, match="epoch 1: the data loader .StatefulLoader. keeps a state"):
        position.set_epoch(3)
    assert position.epoch == 1
    run(position, 6, ahead=1)
    position.set_epoch(2)
    assert run(position) == plain(3)[12:]
