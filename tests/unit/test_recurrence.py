"""When a store that finds nothing is a reason to look closer, and when to say so."""

from __future__ import annotations

from edldist.student.loop.recurrence import Recurrence


def keys(first: int, last: int) -> list[bytes]:
    return [number.to_bytes(32, "little") for number in range(first, last)]


def epoch(seen: Recurrence, number: int, its: list[bytes], found: int = 0, inside: bool = False) -> list:
    """Look an epoch up in batches of 10; what was told."""
    batches = [its[at : at + 10] for at in range(0, len(its), 10)]
    told = [
        seen.looked_up(number, len(batch), min(found, len(batch)), batch, inside and at == 0)
        for at, batch in enumerate(batches)
    ]
    return [each for each in told if each is not None]


def test_an_epoch_that_finds_nothing_is_told_once_it_is_as_long_as_the_one_before() -> None:
    seen = Recurrence()
    assert epoch(seen, 0, keys(0, 100)) == []
    assert epoch(seen, 1, keys(100, 190)) == []
    (told,) = epoch(seen, 1, keys(190, 230))
    assert (told.epoch, told.samples) == (1, 100)
    assert set(told.keys) == {key for at in range(0, 100, 10) for key in keys(at, at + 8)}
    (again,) = epoch(seen, 2, keys(300, 500))
    assert (again.epoch, again.samples) == (2, 130)


def test_nothing_is_told_where_a_sample_was_found_or_comes_again() -> None:
    found, again = Recurrence(), Recurrence()
    for seen in (found, again):
        epoch(seen, 0, keys(0, 50))
    assert found.looked_up(1, 10, 1, keys(100, 110)) is None and epoch(found, 1, keys(110, 200)) == []
    # Its labels are on their way, as where an epoch is read before the one before it is labelled.
    assert again.looked_up(1, 10, 0, keys(0, 10)) is None and epoch(again, 1, keys(110, 200)) == []


def test_nothing_is_told_of_an_epoch_whose_former_one_was_not_seen_whole() -> None:
    inside = Recurrence()
    assert epoch(inside, 3, keys(0, 20), inside=True) == []
    assert epoch(inside, 4, keys(100, 150)) == []
    assert len(epoch(inside, 5, keys(200, 250))) == 1
    skipped = Recurrence()
    assert epoch(skipped, 0, keys(0, 20)) + epoch(skipped, 2, keys(100, 150)) == []


def test_keys_are_bounded() -> None:
    seen = Recurrence()
    epoch(seen, 0, keys(0, 10_000))
    (told,) = epoch(seen, 1, keys(20_000, 30_000))
    assert len(told.keys) == 256


def test_a_data_set_is_looked_at_for_samples_that_a_later_epoch_does_not_find() -> None:
    seen = Recurrence()
    assert not seen.look_closer(0, missed=10)
    assert not seen.look_closer(1, missed=0)
    assert seen.look_closer(1, missed=1)
    assert not seen.look_closer(1, missed=10)  # once an epoch
    assert seen.look_closer(2, missed=1) and seen.look_closer(5, missed=1)
    assert not seen.look_closer(6, missed=1)  # three times in all
