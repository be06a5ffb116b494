"""A worker asks the hungriest student for as much as two forward passes hold."""

from __future__ import annotations

from edldist.teacher.service.demand import Demand, PullOrder


def demand(*students: str, batch_size: int = 8) -> Demand:
    made = Demand(batch_size)
    for student in students:
        made.connected(student)
    return made


def orders(made: Demand) -> list[PullOrder]:
    given = []
    while (order := made.next_pull()) is not None:
        assert order.room == made.batch_size
        given.append(order)
    assert sorted({order.seq for order in given}) == [order.seq for order in given]
    return given


def pulls(made: Demand) -> list[str]:
    return [order.student for order in orders(made)]


def test_a_worker_without_students_asks_nobody():
    assert pulls(demand()) == []


def test_a_worker_is_idle_when_it_holds_nothing_and_nobody_has_anything_for_it():
    assert demand().idle
    made = demand("s", "z")
    for order in orders(made):
        assert not made.idle
        made.idled(order.student, order.seq, buffered=3)
    assert made.idle
    made.woken("s", buffered=1)
    (order,) = orders(made)
    assert not made.idle
    made.granted("s", order.seq, 8, buffered=0)
    assert not made.idle
    made.finished("s", 8)
    assert made.idle


def test_one_student_is_asked_for_both_turns_before_it_answers():
    made = demand("s")
    first, second = orders(made)
    made.granted("s", first.seq, 8, buffered=0)
    assert pulls(made) == []
    made.granted("s", second.seq, 8, buffered=0)
    assert made.held == 16
    assert pulls(made) == []
    made.finished("s", 8)
    assert pulls(made) == ["s"]


def test_room_counts_samples_not_tasks():
    made = demand("s")
    asked = orders(made)
    for _ in range(8):
        made.granted("s", asked.pop(0).seq, 1, buffered=0)
        asked += orders(made)
        assert len(asked) == 1
    made.granted("s", asked.pop(0).seq, 1, buffered=0)
    assert pulls(made) == [], "nine samples are held: there is no room for another eight"


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
        made.granted(order.student, order.seq, 0, buffered=2)
    assert sorted(asked[:3]) == sorted(asked[3:]) == ["a", "b", "c"]


def test_an_idle_student_is_asked_again_once_it_wakes_the_worker():
    made = demand("s")
    first, second = orders(made)
    assert made.idled("s", first.seq, buffered=8)
    assert pulls(made) == [] and made.state("s") == (second.seq, True)
    assert made.idled("s", second.seq, buffered=8)
    assert pulls(made) == [] and made.state("s") == (0, True)
    made.woken("s", buffered=7)
    assert pulls(made) == ["s", "s"]


def test_a_student_that_never_answers_leaves_the_others_a_turn():
    made = demand("dead", "well")
    made.woken("well", buffered=1)
    dead, well = orders(made)
    made.idled("well", well.seq, buffered=1)
    assert pulls(made) == []
    made.woken("well", buffered=1)
    assert pulls(made) == ["well"]


def test_a_student_that_has_something_after_all_is_awake():
    made = demand("s")
    first, second = orders(made)
    made.idled("s", first.seq, buffered=8)
    made.granted("s", second.seq, 8, buffered=8)
    assert pulls(made) == ["s"]


def test_an_answer_closes_the_pulls_before_it_too():
    made = demand("s")
    _, second = orders(made)
    made.granted("s", second.seq, 8, buffered=0)
    assert made.state("s") == (0, False)
    assert pulls(made) == ["s"]


def test_idle_is_heard_again_for_the_last_pull_but_not_for_one_of_an_earlier_life():
    made = demand("s")
    first, second = orders(made)
    made.idled("s", second.seq, buffered=0)
    assert made.idled("s", second.seq, buffered=0), "a worker that sleeps is told why it is quarantined"
    assert not made.idled("s", first.seq, buffered=0)
    made.connected("s")
    assert not made.idled("s", second.seq, buffered=0)
    again = orders(made)
    assert again[0].seq > second.seq
    made.granted("s", second.seq, 4, buffered=0)
    assert made.held == 4 and made.state("s") == (again[1].seq, False)


def test_a_new_welcome_voids_the_open_pull_and_a_lost_student_frees_its_room():
    made = demand("s", "t")
    (first, second) = orders(made)
    assert {first.student, second.student} == {"s", "t"}
    made.connected("s")
    assert pulls(made) == ["s"]
    made.granted("t", second.seq, 16, buffered=0)
    made.disconnected("t")
    assert made.held == 0
    made.finished("t", 16)
    assert made.held == 0


def test_brief_passes_are_asked_for_several_at_a_time_and_long_or_large_ones_are_not():
    made = demand("s")
    made.paced(8, compute_s=0.0001, nbytes=512)
    order = made.next_pull()
    assert order.room == 64
    made.granted("s", order.seq, 64, buffered=0)
    assert made.next_pull().room == 64
    for compute_s, nbytes in ((0.05, 512), (0.0001, 20 << 20)):
        made = demand("s")
        made.paced(8, compute_s=compute_s, nbytes=nbytes)
        assert made.next_pull().room == 8


def test_a_pass_of_no_measurable_time_or_samples_is_no_error():
    made = demand("s")
    made.paced(0, compute_s=0.0, nbytes=0)
    assert made.turn == 8
    made.paced(8, compute_s=0.0, nbytes=0)
    assert made.turn == 64


def test_every_answer_of_a_student_tells_how_hungry_it_is():
    made = demand("s", "t")
    assert [(order.student, order.seq) for order in orders(made)] == [("s", 1), ("t", 2)]
    made.granted("s", 1, 0, buffered=5)
    made.granted("t", 2, 0, buffered=1)
    assert [(order.student, order.seq) for order in orders(made)] == [("t", 3), ("s", 4)]
    made.granted("t", 3, 0, buffered=3)
    made.granted("s", 4, 0, buffered=2)
    assert pulls(made) == ["s", "t"]


def test_what_a_student_says_when_it_has_nothing_counts_too():
    made = demand("s", "t", "u")
    for student in "stu":
        made.idled(student, 0, buffered={"s": 3, "t": 2, "u": 1}[student])
        made.woken(student, buffered={"s": 3, "t": 2, "u": 1}[student])
    assert pulls(made) == ["u", "t"]


def test_a_new_student_is_taken_for_the_hungriest():
    made = demand("s")
    made.idled("s", 0, buffered=1)
    made.woken("s", buffered=1)
    made.connected("new")
    assert pulls(made) == ["new", "s"]


def test_a_student_that_welcomes_again_is_owed_nothing():
    made = demand("s")
    first = orders(made)[0]
    made.granted("s", first.seq, 16, buffered=0)
    made.connected("s")
    assert made.held == 0 and len(orders(made)) == 2


def test_the_state_of_a_stranger_is_that_of_one_who_was_never_asked():
    assert demand().state("nobody") == (0, False)


def test_a_pass_of_nothing_says_nothing_about_the_pace():
    made = Demand(8)
    made.connected("s")
    made.paced(8, 1e-6, 8)
    assert made.turn == 64
    made.paced(0, 1.0, 0)
    assert made.turn == 64


def test_a_turn_is_bounded_by_time_and_by_bytes_to_the_very_pass():
    made = Demand(8)
    made.paced(32, 1e-6, int(0.55 * (1 << 20)))
    assert made.turn == 7 * 8, "1.82 such passes make a MiB, of four full ones each"
    made.paced(8, 0.0005, 1)
    assert made.turn == 4 * 8
    made.paced(4, 0.0005, 1)
    assert made.turn == 2 * 8


def weighing(row_bytes: float, most_bytes: int = 1000) -> Demand:
    made = Demand(8, most_bytes=most_bytes)
    made.connected("s")
    made.weighed(row_bytes)
    return made


def test_rows_that_weigh_little_change_nothing():
    assert [order.room for order in orders(weighing(62.5))] == [8, 8]


def test_heavy_rows_are_asked_for_in_smaller_turns_one_of_which_still_travels():
    made = weighing(100.0)
    first, second = iter(made.next_pull, None)
    assert (first.room, second.room, made.asked, made.asked_bytes) == (5, 5, 10, 1000)
    made.granted("s", first.seq, 5, buffered=0)
    assert made.next_pull() is None
    made.finished("s", 5)
    assert made.next_pull().room == 5


def test_a_row_that_is_heavier_than_everything_is_asked_for_alone():
    assert [order.room for order in iter(weighing(1e9).next_pull, None)] == [1, 1]


def test_a_heavier_row_counts_at_once_and_lighter_ones_by_and_by():
    made = weighing(50.0)
    made.weighed(100.0)
    assert made.turn == 5
    for _ in range(20):
        made.weighed(50.0)
    assert made.turn == 8, "as wide as its passes again"


def test_what_is_held_when_rows_turn_out_to_be_heavy_is_waited_for():
    made = demand("s")
    for order in orders(made):
        made.granted("s", order.seq, 8, buffered=0)
    made._most_bytes = 1000
    made.weighed(100.0)
    made.finished("s", 8)
    assert made.next_pull() is None, "8 of 10 are held, and 5 would be asked for"
    made.finished("s", 8)
    assert made.next_pull().room == 5
