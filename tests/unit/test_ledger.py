"""What a worker holds of whom: each task is answered, given back or forgotten once, its room with it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edldist.teacher.service.ledger import Ledger
from edldist.teacher.tasks import HeldTask
from edldist.wire.messages import Idle, Lease, LeaseGroup, Ping, Tasks, TensorSpec, Wake

LAST = 1 << 30
SPEC = TensorSpec(name="x", dtype="uint8", shape=[3])


def ledger(*students: str, batch_size: int = 4) -> Ledger:
    made = Ledger(batch_size)
    for student in students:
        made.connected(student)
    return made


def tasks(seq: int, *groups: list[tuple[int, int]]) -> Tasks:
    """An answer to a pull: groups of (lease, samples)."""
    return Tasks(
        seq=seq,
        groups=[
            LeaseGroup(
                leases=[
                    Lease(id=lease, samples=samples, cost=samples, own_pass=lease % 2 == 0)
                    for lease, samples in group
                ],
                tensors=[SPEC],
            )
            for group in groups
        ],
        buffered=0,
    )


def give(made: Ledger, student: str, *groups: list[tuple[int, int]]) -> None:
    """A student answers all that it was asked."""
    made.pulls()
    made.accept(student, tasks(LAST, *groups), [memoryview(bytes(100 + n)) for n in range(len(groups))])


def test_tasks_come_with_the_rows_and_frames_of_their_group():
    made = ledger("s")
    give(made, "s", [(1, 2), (3, 1)], [(5, 1)])
    first, second, third = made.take()
    assert [(task.lease, task.start, task.samples) for task in (first, second, third)] == [
        (1, 0, 2),
        (3, 2, 1),
        (5, 0, 1),
    ]
    assert first.inputs is second.inputs and first.inputs.rows == 3
    assert [frame.nbytes for frame in first.inputs.frames] == [100]
    assert [frame.nbytes for frame in third.inputs.frames] == [101]
    assert (first.student, first.own_pass) == ("s", False)


def test_a_task_is_closed_once():
    made = ledger("s")
    give(made, "s", [(1, 2), (3, 2)])
    taken = made.take()
    assert made.close(taken) == taken
    assert made.close(taken) == [] and len(made) == 0


def test_what_waits_is_given_back_alone_and_everything_when_time_is_up():
    made = ledger("s", "t")
    give(made, "s", [(1, 4), (3, 4)])
    give(made, "t", [(1, 4), (5, 4)])
    assert [(task.student, task.lease) for task in made.take()] == [("s", 1)]
    assert made.give_back_waiting() == {"s": [3], "t": [1, 5]}
    assert (made.waiting, len(made)) == (0, 1)
    assert made.give_back_all() == {"s": [1]}
    assert made.give_back_all() == made.give_back_waiting() == {}


def test_a_student_that_is_gone_is_owed_nothing_and_others_all():
    made = ledger("s", "t")
    give(made, "s", [(1, 4), (3, 4)])
    give(made, "t", [(7, 4)])
    (begun,) = made.take()
    made.disconnected("s")
    assert made.close([begun]) == []
    assert [task.lease for task in made.take()] == [7]
    assert made.view("t", Ping(seq=9, buffered=0)).held == [7]


def test_a_student_that_welcomes_again_expects_nothing_of_its_earlier_life():
    made = ledger("s")
    give(made, "s", [(1, 4)])
    made.connected("s")
    assert (made.waiting, len(made)) == (0, 0)
    assert len(made.pulls()["s"]) == 2, "all the room is free"


def test_the_view_of_a_student_is_of_it_alone():
    made = ledger("s", "t")
    give(made, "s", [(1, 4)])
    made.pulls()
    made.idled("t", Idle(seq=made.view("t", Ping(seq=1, buffered=0)).pulled, buffered=0))
    view = made.view("t", Ping(seq=2, buffered=0))
    assert (view.seq, view.held, view.pulled, view.asleep) == (2, [], 0, True)
    made.woken("t", Wake(buffered=1))
    assert not made.view("t", Ping(seq=3, buffered=0)).asleep


def test_idle_to_a_pull_of_an_earlier_life_changes_nothing():
    made = ledger("s")
    assert not made.idled("s", Idle(seq=77, buffered=0))


def test_figures_count_what_was_labelled():
    made = ledger("s")
    give(made, "s", [(1, 2), (3, 1)])
    made.labelled(made.close(made.take()), compute_s=0.1)
    assert (made.tasks, made.samples) == (2, 3)


def test_brief_passes_over_few_bytes_ask_for_several_at_once():
    made = ledger("s")
    give(made, "s", [(1, 4)])
    made.labelled(made.close(made.take()), compute_s=1e-4)
    assert made.pulls()["s"][0].room == 32
    slow = ledger("s")
    give(slow, "s", [(1, 4)])
    slow.labelled(slow.close(slow.take()), compute_s=1.0)
    assert slow.pulls()["s"][0].room == 4


def test_large_inputs_ask_for_one_pass_at_once_however_brief_it_is():
    made = ledger("s")
    seq = made.pulls()["s"][0].seq
    made.accept("s", tasks(seq, [(1, 4)]), [memoryview(bytes(1 << 20))])
    made.labelled(made.close(made.take()), compute_s=1e-4)
    assert [pull.room for pull in made.pulls()["s"]] == [4]


@given(st.lists(st.sampled_from(["give", "take", "answer", "back", "all", "leave", "welcome"]), max_size=40))
def test_room_returns_with_every_task_whatever_becomes_of_it(steps):
    made, lease = ledger("s"), 0
    begun: list[HeldTask] = []
    for step in steps:
        if step == "give":
            for pull in made.pulls().get("s", []):
                made.accept("s", tasks(pull.seq, [(lease := lease + 1, pull.room)]), [memoryview(b"")])
        elif step == "take":
            begun += made.take()
        elif step == "answer":
            made.close(begun)
        elif step == "back":
            made.give_back_waiting()
        elif step == "all":
            made.give_back_all()
        elif step == "leave":
            made.disconnected("s")
        else:
            made.connected("s")
        assert made.waiting <= len(made)
    made.give_back_all()
    made.connected("s")
    assert len(made) == 0 and [pull.room for pull in made.pulls()["s"]] == [4, 4]


def test_samples_with_lengths_cost_their_rows_and_count_as_samples():
    made = ledger("s", batch_size=8)
    made.pulls()
    group = LeaseGroup(
        leases=[
            Lease(id=1, samples=2, cost=5, own_pass=False),
            Lease(id=3, samples=1, cost=4, own_pass=False),
            Lease(id=5, samples=3, cost=3, own_pass=False),
        ],
        tensors=[TensorSpec(name="tokens", dtype="uint8", shape=[12])],
    )
    made.accept("s", Tasks(seq=LAST, groups=[group], buffered=0), [memoryview(bytes(12))])
    assert made.pulls() == {}, "12 of 16 are taken: there is no room for a full pass"
    first = made.take()
    assert [(task.lease, task.start, task.rows) for task in first] == [(1, 0, 5), (5, 9, 3)], "8 rows fit"
    made.labelled(made.close(first), compute_s=1.0)
    assert (made.tasks, made.samples) == (2, 5)
    assert [pull.room for pull in made.pulls()["s"]] == [8]


def test_another_batch_size_changes_passes_and_pulls():
    made = ledger("s", batch_size=4)
    made.resize(8)
    assert [pull.room for pull in made.pulls()["s"]] == [8, 8]
    give(made, "s", [(1, 4), (3, 4)])
    assert len(made.take()) == 2


def test_a_student_that_is_gone_is_asked_for_nothing():
    made = ledger("s", "t")
    made.disconnected("s")
    assert list(made.pulls()) == ["t"]


def test_bytes_of_a_task_are_its_rows_of_the_frames_of_its_group():
    made = ledger("s")
    made.pulls()
    group = LeaseGroup(
        leases=[Lease(id=n, samples=1, cost=1, own_pass=True) for n in range(4)], tensors=[SPEC]
    )
    made.accept("s", Tasks(seq=LAST, groups=[group], buffered=0), [memoryview(bytes(1 << 20))])
    made.labelled(made.close(made.take()), compute_s=1e-5)
    made.give_back_all()
    assert [pull.room for pull in made.pulls()["s"]] == [4, 4], "a quarter of a MiB in a quarter of a pass"


def test_it_tells_what_was_asked_for_and_what_waits():
    made = ledger("s", "t")
    assert made.room == 8, "two turns of four"
    assert levels(made) == {"receive": (0, 0), "decode": (0, 0)} and made.idle
    made.pulls()
    assert levels(made) == {"receive": (8, 0), "decode": (0, 0)} and not made.idle
    made.weighed(30.0)
    assert levels(made)["receive"] == (8, 240)
    made.accept("s", tasks(LAST, [(1, 2), (3, 3)]), [memoryview(bytes(50))])
    assert levels(made) == {"receive": (4, 120), "decode": (5, 50)}
    made.take()
    assert levels(made)["decode"] == (3, 30), "one would make the pass too large"


def levels(made: Ledger) -> dict[str, tuple[int, int]]:
    return {where: tuple(level) for where, level in made.levels().items()}
