"""What holds up a job, from made figures; pure."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from edldist.tracing.kinds import Kind
from edldist.wire.messages import GroupStatus, MemberStatus, RefusedStatus, Status
from edldist_launch.doctor.bottleneck import diagnose
from edldist_launch.doctor.finding import Finding
from edldist_launch.doctor.job_figures import JobFigures, figures_between
from edldist_launch.doctor.job_path import PathFigures, path_figures
from edldist_launch.doctor.report import show_findings
from tests.unit.test_tracing import whole_life

SECONDS = 10.0
RANGE = {"least": 1, "most": 8}


def member(name: str, role: str, **stats: Any) -> MemberStatus:
    own = {"group": "big"} if role == "teacher" else {"teachers": ["big"], "info": {"rank": 0}}
    usual = {"id": name, "role": role, "group": "", "address": "", "process": f"p-{name}", "host": "a"}
    figures = {"pid": 1, "joined_s": 60.0, "silent_s": 0.1, "links": [], "info": {}, "stats": stats}
    return MemberStatus(**usual | figures | own)


def group(**more: Any) -> GroupStatus:
    usual = {"name": "big", "workers": 2, "draining": 0, "wanted": None, "least": None, "most": None}
    figures = {"held": None, "demand": None, "capacity": None, "by_device": {}, "starved": None}
    return GroupStatus(**usual | figures | {"leaving": [], "why": ""} | more)


def figures(
    loop: dict[str, Any] | None = None,
    workers: dict[str, dict[str, Any]] | None = None,
    groups: list[GroupStatus] | None = None,
    refused: list[RefusedStatus] | None = None,
) -> JobFigures:
    """Ten seconds of a job: by how much the figures of its members grow."""
    usual = {"loop_s": SECONDS, "batches": 100, "samples": 6400, "starved_s": 0.0, "reading_s": 0.1}
    student = None if loop is None else usual | loop
    base = {"up_s": SECONDS, "passes": 100, "samples": 3200, "busy_s": 5.0, "batch_size": 32}
    workers = {"t1": {}, "t2": {}} if workers is None else workers
    made = {name: base | more for name, more in workers.items()}
    fixed = {"batch_size", "quarantine", "out_of_memory", "waiting_s", "buffered"}

    def status(share: float) -> Status:
        def grown(stats: dict[str, Any]) -> dict[str, Any]:
            return {k: v if k in fixed else 1000.0 + v * share for k, v in stats.items()}

        members = [member(name, "teacher", **grown(stats)) for name, stats in made.items()]
        members += [member("s", "student", **grown(student))] if student is not None else []
        return Status(
            incarnation="i",
            uptime_s=100.0 + share * SECONDS,
            members=members,
            records=[],
            seq=0,
            groups=[group()] if groups is None else groups,
            refused=refused or [],
        )

    return figures_between(status(0.0), status(1.0))


def first(found: list[Finding]) -> Finding:
    return found[0]


def test_teachers_that_compute_all_the_time_while_the_loop_waits_are_too_slow() -> None:
    busy = {"busy_s": 9.4}
    job = figures(
        {"starved_s": 6.0}, {"t1": busy, "t2": busy}, [group(demand=1600.0, capacity=340.0, **RANGE)]
    )
    (found,) = diagnose(job)
    assert (found.check, found.level) == ("teachers", "warn")
    assert "waiting for labels 60%" in found.said and "compute for 94%" in found.said
    assert "5 workers of big would keep up, where there are 2 (edldist scale big=5)" in found.remedy


def test_labels_that_are_there_make_the_students_own_steps_the_limit() -> None:
    job = figures(
        {"starved_s": 0.1, "backpressure_s": 7.0},
        {"t1": {"busy_s": 1.0}, "t2": {"busy_s": 1.0}},
        [group(demand=640.0, capacity=3200.0, **RANGE)],
    )
    (found,) = diagnose(job)
    assert (found.check, found.level) == ("student steps", "ok")
    assert "98%" in found.said and "labelled for 70%" in found.said
    assert "1 of the 2 workers of big would do (edldist scale big=1)" in found.remedy


@pytest.mark.parametrize(
    ("bounds", "workers", "fewer", "more"),
    [
        ({}, 2, "(end others with SIGTERM)", "(start some more by hand)"),
        (
            {"least": 2, "most": 2},
            2,
            "(its replicas in the job file allow 2 to 2)",
            "(its replicas in the job file allow 2 to 2)",
        ),
        (
            {"least": 2, "most": 4},
            3,
            "(edldist scale big=2, as far as its replicas in the job file allow: 2 to 4)",
            "(edldist scale big=4, as far as its replicas in the job file allow: 2 to 4)",
        ),
    ],
)
def test_no_number_of_workers_is_advised_that_the_job_refuses(
    bounds: dict[str, int], workers: int, fewer: str, more: str
) -> None:
    idle, busy = {"busy_s": 1.0}, {"busy_s": 9.4}
    spare = group(workers=workers, demand=640.0, capacity=3200.0, **bounds)
    (found,) = diagnose(figures({"starved_s": 0.1}, {"t1": idle, "t2": idle}, [spare]))
    assert f"1 of the {workers} workers of big would do {fewer}" in found.remedy
    short = group(workers=workers, demand=1600.0, capacity=340.0, **bounds)
    (found,) = diagnose(figures({"starved_s": 6.0}, {"t1": busy, "t2": busy}, [short]))
    assert f"5 workers of big would keep up, where there are {workers} {more}" in found.remedy


@pytest.mark.parametrize("starved_s", [0.0, 3.0])
def test_a_slow_data_loader_is_found_behind_the_starving_that_it_causes(starved_s: float) -> None:
    job = figures({"starved_s": starved_s, "reading_s": 6.0}, {"t1": {"busy_s": 0.5}})
    found = first(diagnose(job))
    assert found.check == "data loader" and "its data loader 60%" in found.said


def test_a_loader_that_reads_long_is_not_blamed_for_teachers_that_are_busy() -> None:
    job = figures({"starved_s": 5.0, "reading_s": 3.5}, {"t1": {"busy_s": 9.5}})
    assert first(diagnose(job)).check == "teachers"


def path(turnaround_s: float, transit_s: float, **stages: float) -> dict[str, PathFigures]:
    shares = {Kind[name]: share for name, share in stages.items()}
    return {"big": PathFigures(turnaround_s, transit_s, shares, 100)}


def test_the_network_is_found_where_both_sides_wait() -> None:
    loop = {"starved_s": 6.0, "sent_socket_bytes": 4e8, "received_socket_bytes": 1e8}
    job = figures(loop, {"t1": {"busy_s": 2.0}})
    found = first(diagnose(job, path(0.05, 0.04)))
    assert (
        found.check == "network" and "50.0 ms" in found.said and "40.0 ms are both ways (80%)" in found.said
    )
    assert "50.0 MB/s" in found.said
    assert first(diagnose(job, path(0.05, 0.004))).check == "read-ahead"
    assert first(diagnose(job)).check == "read-ahead"


def test_a_link_that_is_full_is_said_beside_the_bottleneck() -> None:
    job = figures({"sent_socket_bytes": 9e8, "received_socket_bytes": 1e8})
    found = {each.check: each for each in diagnose(job, link_bytes_per_s=125e6)}
    assert "100.0 MB/s, 80% of what its network carries (125.0 MB/s)" in found["network"].said
    assert "network" not in {each.check for each in diagnose(job, link_bytes_per_s=1.25e9)}


def test_one_slow_worker_is_named_with_its_figure_and_the_others() -> None:
    job = figures({}, {"t1": {}, "t2": {}, "t3": {"samples": 320}})
    (found,) = [each for each in diagnose(job) if each.check == "slow worker"]
    assert found.said.startswith("t3 on a labels 64 samples") and "640 in the median" in found.said
    assert not [
        each for each in diagnose(figures({}, {"t1": {"samples": 320}})) if each.check == "slow worker"
    ]


def test_a_worker_that_hardly_computes_is_not_called_slow() -> None:
    few = {"busy_s": 0.2, "passes": 20, "samples": 640}
    job = figures({}, {"t1": few, "t2": few | {"busy_s": 0.9}})
    assert "slow worker" not in {each.check for each in diagnose(job)}


def test_small_passes_count_where_workers_are_busy() -> None:
    small = {"busy_s": 9.0, "samples": 400}
    (found,) = [e for e in diagnose(figures({"starved_s": 5.0}, {"t1": small})) if e.check == "small passes"]
    assert "4 samples in the mean, and could have 32 (12%)" in found.said
    idle = figures({}, {"t1": small | {"busy_s": 1.0}})
    assert "small passes" not in {each.check for each in diagnose(idle)}


def test_full_and_short_passes_ask_for_a_larger_batch_size() -> None:
    short = {"passes": 10_000, "samples": 320_000, "busy_s": 8.0}
    (found,) = [each for each in diagnose(figures({}, {"t1": short})) if each.check == "batch size"]
    assert "full with 32 samples" in found.said and "0.80 ms" in found.said


def test_a_dear_codec_and_dear_copies_are_said_by_their_shares() -> None:
    said = diagnose(figures({}), path(0.01, 0.0, FORWARD=0.4, ENCODE=0.35, COPY_OUT=0.25))
    assert [(each.check, each.said[:22]) for each in said[1:]] == [
        ("codec", "the codec takes 35% of"),
        ("passes", "bringing labels to the"),
    ]
    assert len(diagnose(figures({}), path(0.01, 0.0, FORWARD=0.9, ENCODE=0.1))) == 1
    # Of workers whose passes take 5% of the time nothing is dear; of one that is busy with encoding, much is.
    idle, encodes = {"t1": {"busy_s": 0.2}}, {"t1": {"busy_s": 0.4}}
    assert len(diagnose(figures({}, idle), path(0.01, 0.0, FORWARD=0.4, ENCODE=0.6))) == 1
    assert len(diagnose(figures({}, encodes), path(0.01, 0.0, FORWARD=0.05, ENCODE=0.95))) == 2


def test_who_gets_no_work_has_no_memory_or_was_refused_is_said() -> None:
    refused = RefusedStatus(id="t9", role="teacher", group="big", host="b", reason="another model", ago_s=3.0)
    job = figures({}, {"t1": {"quarantine": "it fails", "out_of_memory": 2}}, refused=[refused])
    found = {each.check: each.said for each in diagnose(job)}
    assert "t1 on a gets no work: it fails" in found["quarantine"]
    assert "2 times" in found["memory"] and "at most 32" in found["memory"]
    assert "t9 of b was refused 3 s ago: another model" in found["refused"]


def test_work_that_is_done_again_is_counted() -> None:
    found = {each.check: each.said for each in diagnose(figures({"requeued": 7, "duplicates": 2}))}
    assert "7 tasks" in found["done again"] and "2 answers" in found["done again"]


def test_a_group_without_workers_comes_first_and_fails() -> None:
    refused = [RefusedStatus(id="t", role="teacher", group="big", host="b", reason="its weights", ago_s=1.0)]
    job = figures({"batches": 0, "loop_s": 0.0, "waiting_s": 8.0}, {}, [group(workers=0)], refused)
    missing, labels, *_ = diagnose(job)
    assert missing.level == "fail" and "its weights" in missing.said and "--name big" in missing.remedy
    assert labels.level == "fail" and "waited for labels for 8.0 s" in labels.said


def test_nobody_is_there_or_nobody_takes_a_step() -> None:
    assert first(diagnose(figures(None, {}))).said.startswith("no student is in the job")
    still = figures({"batches": 0, "loop_s": 0.0, "samples": 0, "reading_s": 0.0})
    assert "no student took a batch" in first(diagnose(still)).said


def test_a_wait_that_has_not_ended_counts() -> None:
    job = figures({"batches": 0, "loop_s": 0.0, "starved_s": 9.0, "reading_s": 0.0}, {"t1": {"busy_s": 9.9}})
    assert job.students[0].starved == 1.0 and first(diagnose(job)).check == "teachers"


def test_who_came_or_was_started_anew_is_not_compared_with_who_was_there() -> None:
    def status(*names: str, uptime_s: float) -> Status:
        members = [member(name, "teacher", samples=10 * uptime_s) for name in names]
        return Status(incarnation="i", uptime_s=uptime_s, members=members, records=[], seq=0)

    before, after = status("t1", "t2", uptime_s=1.0), status("t2", "t3", uptime_s=2.0)
    found = figures_between(before, after)
    assert [each.id for each in found.workers] == ["t2"] and found.missed == ["t1", "t3"]
    again = replace(found, workers=[])
    assert diagnose(again)


def test_figures_that_are_no_numbers_are_none() -> None:
    broken = {"busy_s": "often", "passes": None, "samples": True, "batch_size": "auto", "up_s": 10.0}

    def status(uptime_s: float) -> Status:
        members = [member("t", "teacher", **broken), member("s", "student", loop_s="x")]
        return Status(
            incarnation="i", uptime_s=uptime_s, members=members, records=[], seq=0, groups=[group()]
        )

    assert diagnose(figures_between(status(1.0), status(2.0)))


def test_a_trace_tells_the_ways_without_comparing_clocks() -> None:
    (found,) = path_figures(whole_life()).values()
    # Sent at 1.021, back at 1.08; received at 1001.024, returned at 1001.077 by a clock of its own.
    assert found.turnaround_s == pytest.approx(0.059)
    assert found.transit_s == pytest.approx(0.006)
    assert found.tasks == 2 and found.stages[Kind.ENCODE] == pytest.approx(0.2)


def test_findings_of_a_job_end_in_words_of_their_own() -> None:
    told = io.StringIO()
    last = ("{} bad, {} to look at", "{} to look at", "nothing else to look at")
    assert show_findings(diagnose(figures({})), told, False, last) is False
    lines = told.getvalue().splitlines()
    assert lines[0].startswith("ok   student steps") and lines[-1] == "nothing else to look at"
