"""A worker asks the hungriest student for as much as two forward passes hold."""

from __future__ import annotations

from edldist.teacher.demand import Demand, PullOrder


def demand(*students: str, batch_size: int = 8) -> Demand:
    made = Demand(batch_size)
    for student in students:
        made.connected(student)
    return made


def pulls(made: Demand) -> list[str]:
    orders = []
    while (order := made.next_pull()) is not None:
        assert order.samples == made.batch_size
        orders.append(order.student)
    return orders


def test_a_worker_without_students_asks_nobody():
    assert pulls(demand()) == []


def test_one_student_is_asked_once_until_it_answers():
    made = demand("s")
    assert made.next_pull() == PullOrder("s", 8)
    assert made.next_pull() is None
    made.granted("s", 8, buffered=0)
    assert pulls(made) == ["s"]
    made.granted("s", 8, buffered=0)
    assert made.held == 16
    assert pulls(made) == []
    made.finished("s", 8)
    assert pulls(made) == ["s"]


def test_room_counts_samples_not_tasks():
    made = demand("s")
    for _ in range(8):
        assert pulls(made) == ["s"]
        made.granted("s", 1, buffered=0)
    assert pulls(made) == ["s"]
    made.granted("s", 1, buffered=0)
    assert pulls(made) == []


def test_the_hungriest_is_asked_first_and_equals_take_turns():
    made = demand("full", "hungry", batch_size=4)
    made.woken("full", buffered=5)
    made.woken("hungry", buffered=1)
    assert pulls(made) == ["hungry", "full"]

    made = demand("a", "b", "c", batch_size=4)
    asked = []
    for _ in range(6):
        order = made.next_pull()
        asked.append(order.student)
        made.granted(order.student, 0, buffered=2)
    assert sorted(asked[:3]) == sorted(asked[3:]) == ["a", "b", "c"]


def test_an_idle_student_is_asked_again_once_it_wakes_the_worker():
    made = demand("s")
    pulls(made)
    made.idled("s", buffered=8)
    assert pulls(made) == []
    made.woken("s", buffered=7)
    assert pulls(made) == ["s"]


def test_a_new_welcome_voids_the_open_pull_and_a_lost_student_frees_its_room():
    made = demand("s", "t")
    assert sorted(pulls(made)) == ["s", "t"]
    made.connected("s")
    assert pulls(made) == ["s"]
    made.granted("t", 16, buffered=0)
    made.disconnected("t")
    assert made.held == 0
    made.finished("t", 16)
    assert made.held == 0


def test_brief_passes_are_asked_for_several_at_a_time_and_long_or_large_ones_are_not():
    made = demand("s")
    made.paced(8, compute_s=0.0001, nbytes=512)
    assert made.next_pull() == PullOrder("s", 64)
    made.granted("s", 64, buffered=0)
    assert made.next_pull() == PullOrder("s", 64)
    for compute_s, nbytes in ((0.05, 512), (0.0001, 20 << 20)):
        made = demand("s")
        made.paced(8, compute_s=compute_s, nbytes=nbytes)
        assert made.next_pull() == PullOrder("s", 8)


def test_a_pass_of_no_measurable_time_or_samples_is_no_error():
    made = demand("s")
    made.paced(0, compute_s=0.0, nbytes=0)
    assert made.turn == 8
    made.paced(8, compute_s=0.0, nbytes=0)
    assert made.turn == 64
