"""What a run amounts to, from the coordinator's answers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from edldist.wire.messages import Event, MemberStatus, Report, Scalar, Status
from edldist_launch.record.memory import TallyMemory
from edldist_launch.record.tally import Tally


def member(member_id: str, role: str = "student", pid: int = 1, **stats: Scalar) -> MemberStatus:
    rank = stats.pop("rank", 0) if role == "student" else None
    return MemberStatus(
        id=member_id,
        role=role,
        group="",
        address="",
        process=f"p{pid}",
        host="h",
        pid=pid,
        joined_s=0.0,
        silent_s=0.0,
        links=[],
        info={} if rank is None else {"rank": rank},
        stats=stats,
    )


def status(
    *members: MemberStatus, records: Sequence[Event | Report] = (), seq: int = 0, life: str = "one"
) -> Status:
    return Status(incarnation=life, uptime_s=0.0, members=list(members), records=list(records), seq=seq)


def report(seq: int, rank: int = 0, reporter: str = "p", **values: Scalar) -> Report:
    return Report(reporter=reporter, seq=seq, rank=rank, t=100.0 + seq, values=values)


def event(name: str, **fields: Scalar) -> Event:
    return Event(event=name, t=5.0, fields=fields)


SPIKES = (("loss_spiked", 1), ("rolled_back", 2))


def test_records_become_event_lines_with_unix_time() -> None:
    lines = Tally().observe(
        status(records=[event("teacher_joined", id="a"), report(1, step=3, loss=0.5)], seq=2), 0.0
    )
    assert lines == [
        {"t": 5.0, "event": "teacher_joined", "id": "a"},
        {"t": 101.0, "event": "report", "rank": 0, "step": 3, "loss": 0.5},
    ]


def test_the_last_values_of_rank_zero_are_the_metrics() -> None:
    tally = Tally()
    tally.observe(
        status(
            records=[
                report(1, step=1, epoch=0, loss=2.0, accuracy=0.1),
                report(1, rank=1, reporter="q", step=9, loss=7.0),
                report(2, step=2, epoch=1, steps=10, epochs=4, loss=1.0),
                report(3, teacher_accuracy=0.9, note="x"),
            ]
        ),
        0.0,
    )
    result = tally.result(1.0)
    assert result["metrics"] == {"loss": 1.0, "accuracy": 0.1, "teacher_accuracy": 0.9, "note": "x"}
    assert (result["steps"], result["epochs"]) == (2, 1)


def test_a_checkpoint_later_than_the_last_report_says_how_far_the_run_came() -> None:
    tally = Tally()
    tally.observe(status(records=[report(1, step=610), event("checkpoint_saved", step=613)]), 0.0)
    assert tally.result(1.0)["steps"] == 613


def test_a_run_that_went_no_further_than_its_checkpoint_is_where_that_is() -> None:
    tally = Tally()
    tally.observe(status(records=[event("checkpoint_restored", step=613)]), 0.0)
    assert tally.result(1.0)["steps"] == 613
    assert tally.figures(1.0).steps_per_s == 0.0


def test_without_reports_steps_are_the_batches_of_the_furthest_rank() -> None:
    tally = Tally()
    tally.observe(status(member("a", batches=4, epoch=1), member("b", rank=1, batches=5, epoch=1)), 0.0)
    assert (tally.result(1.0)["steps"], tally.result(1.0)["epochs"]) == (5, 1)


def test_epochs_are_whole_ones_though_a_script_names_the_one_that_runs_from_0() -> None:
    tally = Tally()
    for step, epoch in ((1, 0), (2, 1)):
        its = member("a", batches=step, epoch=epoch)
        tally.observe(status(its, records=[report(step, epoch=epoch)]), step)
    assert tally.result(1.0)["epochs"] == 1
    tally.observe(status(records=[event("student_left", id="a", epoch=2)]), 3.0)
    assert tally.result(1.0)["epochs"] == 2


def test_the_epochs_of_an_evaluation_are_none_of_the_trainings() -> None:
    tally = Tally()
    evaluation = member("b", batches=90, epoch=30)
    evaluation.info["checkpointed"] = False
    tally.observe(status(member("a", batches=4, epoch=1), evaluation), 0.0)
    tally.observe(status(records=[event("student_left", id="b", epoch=31)]), 1.0)
    assert tally.result(1.0)["epochs"] == 1


def test_a_restarted_coordinator_is_asked_from_the_start_and_nothing_counts_twice() -> None:
    tally = Tally()
    first = [event("teacher_joined", id="t-0"), report(1, step=1, loss=3.0), report(2, step=2, loss=2.0)]
    tally.observe(status(records=first, seq=3), 0.0)
    assert tally.since == 3
    assert tally.observe(status(records=[report(3, step=3)], seq=4, life="two"), 1.0) == []
    assert tally.since == 0
    again = [event("teacher_joined", id="t-0"), report(2, step=2, loss=2.0), report(3, step=3, loss=1.0)]
    lines = tally.observe(status(records=again, seq=3, life="two"), 2.0)
    assert [line.get("step") for line in lines] == [None, 3]
    assert tally.result(1.0)["teachers"] == {"joined": 1, "left": 0, "lost": 0}
    assert tally.metrics == {"loss": 1.0}


def test_who_takes_over_goes_on_with_all_figures() -> None:
    tally = Tally()
    its = member("a", batches=4, samples=32, epoch=1, rank=1)
    its.info["checkpointed"] = False
    first = [
        event("teacher_joined", id="t-0"),
        report(1, step=7, loss=3.0),
        event("checkpoint_saved", step=9),
    ]
    tally.observe(status(its, member("b", pid=2, samples=8, batches=9, epoch=2), records=first, seq=3), 10.0)
    tally.observe(status(member("b", pid=2, samples=28)), 20.0)
    memory = msgspec.json.decode(msgspec.json.encode(tally.memory(25.0)), type=TallyMemory)
    successor = Tally()
    successor.recall(memory, 1_005.0)
    assert successor.result(1.0) == tally.result(1.0)
    assert successor.result(1.0)["samples_per_s"] == 2.0
    told = [report(1, step=7, loss=3.0), event("teacher_joined", id="t-0"), report(2, step=10)]
    lines = successor.observe(status(member("c", pid=3, samples=40), records=told, life="two"), 1_030.0)
    assert [line.get("step") for line in lines] == [None, 10]
    result = successor.result(1.0)
    assert (result["samples"], result["samples_per_s"], result["student_restarts"]) == (100, 1.5, 1)
    assert (result["teachers"]["joined"], result["epochs"], result["steps"]) == (1, 2, 10)


def test_teachers_are_counted_by_what_became_of_them_while_students_ran() -> None:
    tally = Tally()
    joined = [event("teacher_joined", id=name) for name in ("a", "b", "c")]
    tally.observe(
        status(records=[*joined, event("teacher_lost", id="a"), event("teacher_left", id="b")]), 0.0
    )
    tally.observe(status(records=[event("teacher_left", id="b"), event("teacher_joined", id="a.r1")]), 1.0)
    tally.freeze()
    tally.observe(status(records=[event("teacher_left", id="c"), event("teacher_left", id="a.r1")]), 2.0)
    assert tally.result(1.0)["teachers"] == {"joined": 4, "left": 1, "lost": 1}


def test_a_worker_that_dies_unseen_by_a_fresh_coordinator_is_lost_once() -> None:
    tally = Tally()
    tally.observe(status(records=[event("teacher_joined", id="a")]), 0.0)
    tally.crashed("a")
    tally.crashed("never-joined")
    tally.observe(status(records=[event("teacher_lost", id="a")]), 1.0)
    assert tally.result(1.0)["teachers"] == {"joined": 1, "left": 0, "lost": 1}


def test_samples_and_tasks_add_up_over_every_student_that_ever_was() -> None:
    tally = Tally()
    tally.observe(status(member("a", pid=1, samples=10, done=2), member("b", pid=2, rank=1, samples=20)), 0.0)
    tally.observe(
        status(
            member("c", pid=3, samples=5, requeued=1),
            records=[
                event("student_lost", id="a", rank=0, samples=12, done=3),
                event("student_left", id="b"),
            ],
        ),
        1.0,
    )
    result = tally.result(1.0)
    assert result["samples"] == 12 + 20 + 5
    assert result["tasks"] == {"done": 3, "requeued": 1, "duplicates": 0, "hedged": 0, "failed": 0}
    assert result["student_restarts"] == 1


def test_samples_that_were_left_out_or_missed_add_up_now_and_at_the_end() -> None:
    tally = Tally()
    for key in ("skipped", "missed", "left_out"):
        first, second = member("a", pid=1, **{key: 8}), member("b", pid=2, rank=1, **{key: 16})
        tally.observe(status(first, second), 0.0)
        tally.observe(status(member("c", pid=3), records=[event("student_lost", id="a", **{key: 32})]), 1.0)
    assert tally.figures(1.0).skipped_samples == tally.result(1.0)["skipped_samples"] == 32 + 16
    assert tally.figures(1.0).missed_samples == tally.result(1.0)["missed_samples"] == 32 + 16
    assert tally.result(1.0)["left_out_samples"] == 32 + 16


def test_loss_spikes_and_rollbacks_are_counted_once_and_outlive_who_counts() -> None:
    tally = Tally()
    spike, back = (msgspec.structs.replace(event(name), reporter="p", seq=seq) for name, seq in SPIKES)
    tally.observe(status(records=[spike, back], seq=2), 0.0)
    tally.observe(status(records=[spike, back], seq=2, life="two"), 1.0)
    successor = Tally()
    successor.recall(tally.memory(1.0), 1.0)
    for each in (tally, successor):
        assert (each.result(1.0)["spikes"], each.result(1.0)["rollbacks"]) == (1, 1)


def test_the_rate_is_over_the_time_from_the_first_to_the_last_batch() -> None:
    tally = Tally()
    for now, samples in ((0.0, 0), (10.0, 100), (11.0, 200), (12.0, 300), (50.0, 300)):
        tally.observe(status(member("a", samples=samples)), now)
    assert tally.result(50.0)["samples_per_s"] == 100.0


def test_one_observation_is_measured_by_the_loops_own_clocks() -> None:
    """A short run after a long start: 4 of its 5 batches came after the first one, in half a second."""
    tally = Tally()
    loops = [member(name, rank=rank, samples=50, batches=5, loop_s=0.5) for rank, name in enumerate("ab")]
    tally.observe(status(*loops), 3.0)
    assert tally.result(10.0)["samples_per_s"] == 160.0


def test_a_single_batch_is_measured_against_the_students_time() -> None:
    tally = Tally()
    tally.observe(status(member("a", samples=50, batches=1, loop_s=0.0)), 3.0)
    assert tally.result(10.0)["samples_per_s"] == 5.0
    assert Tally().result(0.0)["samples_per_s"] == 0.0


def test_live_rates_fall_to_nothing_when_steps_stop() -> None:
    tally = Tally()
    for second in range(6):
        records = [report(second + 1, step=10 * second, steps=100)]
        tally.observe(status(member("a", samples=64 * second), records=records), float(second))
    figures = tally.figures(5.0)
    assert figures.samples_per_s == pytest.approx(64.0)
    assert figures.steps_per_s == pytest.approx(10.0)
    assert figures.eta_s == pytest.approx(5.0)
    assert tally.figures(1000.0).samples_per_s < 1.0


def test_the_figures_of_now_come_from_the_members_of_now() -> None:
    tally = Tally()
    tally.observe(
        status(
            member("t", "teacher"), member("a", buffered=3, starved_s=1.5), member("b", rank=1, buffered=1)
        ),
        0.0,
    )
    figures = tally.figures(0.0)
    assert (figures.workers, figures.ranks, figures.buffered, figures.starved_s) == (1, 2, 4, 1.5)
    tally.observe(status(), 1.0)
    assert (tally.figures(1.0).workers, tally.figures(1.0).starved_s) == (0, 1.5)


def test_strange_reports_do_no_harm() -> None:
    tally = Tally()
    tally.observe(
        status(records=[report(1, step="x", epoch=None, steps=float("nan"), loss=float("nan"))]), 0.0
    )
    result = tally.result(0.0)
    assert result["steps"] == 0
    assert set(result["metrics"]) == {"loss"}


@pytest.mark.parametrize("value", ["soon", None, True, float("nan"), float("inf"), 2**63, -1e300])
def test_figures_that_are_no_sane_numbers_count_as_not_given(value: Scalar) -> None:
    stats = {"samples": value, "batches": value, "buffered": value, "starved_s": value, "epoch": value}
    tally = Tally()
    tally.observe(status(member("s", **stats), records=[event("checkpoint_saved", step=value)]), 0.0)
    assert tally.figures(1.0).buffered == 0
    result = tally.result(1.0)
    assert (result["steps"], result["epochs"], result["samples"], tally.checkpoint) == (0, 0, 0, None)


def test_an_event_keeps_its_time_and_name_whatever_its_fields_say() -> None:
    (line,) = Tally().observe(status(records=[event("scaled", t="never", event=5, to=2)]), 0.0)
    assert line == {"t": 5.0, "event": "scaled", "to": 2}
