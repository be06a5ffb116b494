"""For how long a label queue has been full."""

from __future__ import annotations

from edldist.student.queue.fullness import Fullness


def test_the_times_of_a_full_queue_add_up() -> None:
    fullness = Fullness()
    assert fullness.note(False, 1.0) is None and fullness.seconds(2.0) == 0.0
    assert fullness.note(True, 3.0) is None and fullness.note(True, 4.0) is None
    assert fullness.seconds(4.5) == 1.5, "it lasts"
    assert fullness.note(False, 5.0) == 3.0, "since when it had been full"
    assert fullness.note(False, 6.0) is None
    assert fullness.seconds(9.0) == 2.0
    fullness.note(True, 10.0)
    assert fullness.seconds(11.0) == 3.0
