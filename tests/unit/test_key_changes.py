"""That keys of a job were rotated, added or retired: noticed, recorded, and said in words."""

from __future__ import annotations

import pytest

from edldist.coordinator.course.reported import brief
from edldist.coordinator.key_changes import keys_changed
from edldist.keys.keyring import KeyNews, Keyring, Known, key_news
from edldist.keys.pair import KeyPair
from edldist.observe.event_words import KINDS, describe_event

NOW = 1_000.0
OWN = KeyPair("coordinator", "coordinator", "C1", "secret-1")
NEW = KeyPair("coordinator", "coordinator", "C2", "secret-2")
C1, T1 = Known("coordinator", "coordinator", "C1"), Known("teacher", "teacher", "T1")
C2, T2 = Known("coordinator", "coordinator", "C2"), Known("teacher", "teacher", "T2")
FORMER = [C1._replace(until=NOW + 60), T1._replace(until=NOW + 60)]


@pytest.mark.parametrize(
    ("before", "after", "news", "words"),
    [
        ((OWN, [C1, T1]), (OWN, [T1, C1]), None, ""),
        (
            (OWN, [C1, T1]),
            (NEW, [C2, T2, *FORMER]),
            KeyNews(True, 2, 0, 2),
            "the coordinator has a new key: 2 came, 2 former ones count for a while",
        ),
        ((OWN, [C1]), (OWN, [C1, T1]), KeyNews(False, 1, 0, 0), "keys have changed: 1 came"),
        (
            (NEW, [C2, T2, *FORMER]),
            (NEW, [C2, T2]),
            KeyNews(False, 0, 2, 0),
            "keys have changed: 2 count no more",
        ),
        ((OWN, [C1, T1._replace(until=NOW - 1)]), (OWN, [C1]), None, ""),
    ],
)
def test_what_changed_is_an_event(
    before: tuple[KeyPair, list[Known]], after: tuple[KeyPair, list[Known]], news: KeyNews | None, words: str
) -> None:
    assert key_news(Keyring(*before), Keyring(*after), NOW) == news
    if news is not None:
        event = keys_changed(news, NOW)
        assert event.event in KINDS
        assert brief(event) == ", ".join(f"{name} {value}" for name, value in news._asdict().items())
        assert describe_event({**event.fields, "t": event.t, "event": event.event}) == words
        assert "secret" not in repr(event)
