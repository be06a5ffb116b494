"""The table of connected workers: who gets no work, and who is forgotten."""

from __future__ import annotations

from edldist.student.service.peers import ConnectedWorker, Peers
from edldist.wire.messages import Hello, Vouch
from edldist.wire.transport import Sender
from tests.greetings import FINGERPRINT

A = Sender(b"a")


def add(peers: Peers, name: str, teacher: str = "t", process: str = "p") -> ConnectedWorker:
    hello = Hello(worker=name, teacher=teacher, fingerprint=FINGERPRINT, process=process)
    return peers.add(Sender(name.encode()), hello, 0.0)


def sicken(peers: Peers, worker: ConnectedWorker, now: float = 0.0) -> float | None:
    return [peers.failed(worker, "boom", now) for _ in range(4)][-1]


def test_a_worker_that_keeps_failing_gets_no_work_while_another_of_its_group_is_well():
    peers = Peers()
    sick, well = add(peers, "sick"), add(peers, "well")
    add(peers, "elsewhere", teacher="u")
    assert sicken(peers, sick) == 30.0 and "4 failures in a row" in peers.quarantined(sick, 1.0)
    assert peers.quarantined(well, 1.0) == ""
    peers.drop(well)
    assert peers.quarantined(sick, 1.0) == "", "the last one of its group gets what there is"
    assert sicken(peers, sick) is None


def test_a_worker_that_was_alone_all_the_time_is_never_left_out():
    peers = Peers()
    sick = add(peers, "sick")
    assert sicken(peers, sick) is None and peers.quarantined(sick, 0.0) == ""


def test_a_worker_is_paroled_once_when_its_time_is_up():
    peers = Peers()
    sick, _ = add(peers, "sick"), add(peers, "well")
    sicken(peers, sick)
    peers.exclude(sick)
    assert peers.paroled(29.0) == []
    assert peers.paroled(31.0) == [sick] and peers.paroled(31.0) == []


def test_nothing_is_known_of_a_worker_that_is_gone():
    peers = Peers()
    sick, _ = add(peers, "sick"), add(peers, "well")
    sicken(peers, sick)
    peers.exclude(sick)
    assert peers.drop(sick) and not peers.drop(sick)
    assert peers.paroled(31.0) == [] and len(peers) == 1
    assert peers.quarantined(add(peers, "sick"), 1.0) == ""


def test_only_the_process_behind_a_broken_connection_has_survived_and_once():
    peers = Peers()
    worker = add(peers, "a", process="p1")
    peers.cut_off(worker, 10.0)
    peers.drop(worker)
    assert peers.called_back(12.0, within_s=3.0) == [A]
    assert not peers.survived(A, "p2") and not peers.survived(A, "p1"), "asked for once"
    peers.cut_off(worker, 15.0)
    assert peers.survived(A, "p1")
    assert peers.called_back(19.0, within_s=3.0) == []


def test_a_peer_that_is_reached_or_here_again_is_not_called_back():
    peers = Peers()
    first, second = add(peers, "a"), add(peers, "b")
    for worker in (first, second):
        peers.cut_off(worker, 0.0)
        peers.drop(worker)
    peers.reached(A)
    add(peers, "b")
    assert peers.called_back(1.0, within_s=3.0) == []


def test_peers_that_took_the_same_name_are_told_apart_by_their_keys():
    """The queue's name for a worker is as much its own as its address."""
    peers = Peers()
    hello = Hello(worker="a", teacher="t", fingerprint=FINGERPRINT, process="p")
    member, thief = Sender(b"a", "key of the member"), Sender(b"a", "another key")
    first, second = peers.add(member, hello, 0.0), peers.add(thief, hello, 0.0)
    assert peers.get(member) is first and peers.get(thief) is second
    assert peers.of_key(first.key) is first and peers.of_key(second.key) is second
    peers.cut_off(first, 1.0)
    peers.drop(first)
    assert not peers.survived(thief, "p") and peers.of_key(second.key) is second


def test_connections_that_broke_long_ago_are_forgotten_for_new_ones():
    peers = Peers()
    for number in range(1_001):
        worker = add(peers, f"w{number}")
        peers.cut_off(worker, 0.0)
        peers.drop(worker)
    assert not peers.survived(Sender(b"w0"), "p"), "a thousand are known"
    assert peers.survived(Sender(b"w1"), "p") and peers.survived(Sender(b"w1000"), "p")


def test_a_process_is_vouched_for_by_its_own_name_and_keys_alone():
    """Who holds other keys may call itself as it likes."""
    peers = Peers()
    hello = Hello(worker="a", teacher="teacher", fingerprint=FINGERPRINT, process="p")
    other = Hello(worker="b", teacher="teacher", fingerprint=FINGERPRINT, process="q")
    member, thief = Sender(b"a", "key of the member"), Sender(b"thief", "another key")
    mine, same_keys = peers.add(member, hello, 0.0), peers.add(Sender(b"b", "key of the member"), other, 0.0)
    its = peers.add(thief, hello, 0.0)
    peers.vouched(Sender(b"voucher", "key of the member"), Vouch(id="a", process="p"), 7.0)
    assert (mine.last_heard, same_keys.last_heard, its.last_heard) == (7.0, 0.0, 0.0)
