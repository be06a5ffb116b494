"""The list of metrics, and what a scraper reads of it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edldist.coordinator.course.records import Records
from edldist.coordinator.members.lives import StageTotals
from edldist.coordinator.metrics.catalog import METRICS
from edldist.coordinator.metrics.exposition import exposition
from edldist.coordinator.metrics.spec import MetricSpec
from edldist.observe.stages import StageClock
from edldist.wire.messages import Event, GroupStatus

UNITS = {
    "seconds": "_seconds",
    "bytes": "_bytes",
    "share": "_ratio",
    "nats": "_nats",
    "samples per second": "_samples_per_second",
}


def group(name: str = "big", **fields: Any) -> dict[str, Any]:
    known = {"workers": 3, "draining": 1, "wanted": 5, "least": 1, "most": 8, "held": None, "demand": 480.5}
    known |= {"capacity": 100.0, "by_device": {"NVIDIA A100": 100.0}, "starved": 0.25, "leaving": ["t1"]}
    status: dict[str, Any] = msgspec.to_builtins(GroupStatus(name=name, why="", **(known | fields)))
    return status


def page(*groups: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The least that a status page has."""
    records = Records()
    told: dict[str, Any] = {"uptime_s": 12.5, "garbage": 2, "counts": {"teachers": 3, "students": 1}}
    told |= {"members": [], "gone": [], "groups": list(groups), "restarts": {"teacher": 4, "student": 2}}
    return told | {"stages": []} | records.happenings.told() | fields


def worker(name: str = "t1", **stats: Any) -> dict[str, Any]:
    info = {"version": "7", "device": "cuda:0", "codec": "dense"}
    return {"id": name, "role": "teacher", "group": "big", "job": "", "info": info, "stats": stats}


def student(name: str = "s1", **stats: Any) -> dict[str, Any]:
    return {"id": name, "role": "student", "group": "g", "job": "digits", "info": {}, "stats": stats}


def values(told: dict[str, Any]) -> dict[tuple[str, ...], float]:
    """The samples of a page: by name and the values of their labels, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(exposition(told).decode())
        for sample in family.samples
    }


def named(spec: MetricSpec) -> str:
    return f"{spec.name} {dict(spec.more)}"


class TestList:
    @pytest.mark.parametrize("spec", METRICS, ids=named)
    def test_names_are_by_convention(self, spec: MetricSpec) -> None:
        assert re.fullmatch(r"edldist_[a-z]+(_[a-z]+)*", spec.name)
        assert not spec.name.endswith(("_total", "_info", "_count", "_sum", "_bucket"))
        assert spec.name.endswith(UNITS.get(spec.unit, "")), "the unit is in the name"
        assert not any(end in spec.name for unit, end in UNITS.items() if unit != spec.unit)
        assert not {"job", "instance", "le"} & set(spec.labels), "Prometheus sets these itself"

    @pytest.mark.parametrize("spec", METRICS, ids=named)
    def test_help_explains_itself(self, spec: MetricSpec) -> None:
        assert spec.help[0].isupper() and spec.help.endswith(".") and len(spec.help.split()) >= 5

    def test_no_two_are_alike(self) -> None:
        assert len({(spec.name, spec.more) for spec in METRICS}) == len(METRICS)
        names = [spec.name for spec in METRICS]
        again = [name for before, name in zip(names, names[1:], strict=False) if before != name]
        assert len({*again, names[0]}) == len(again) + 1, "those of one name follow each other"
        for name in names:
            (of_name,) = {(s.kind, s.unit, s.help, s.labels) for s in METRICS if s.name == name}
            assert of_name

    def test_all_that_there_is_to_tell_has_a_name_in_the_list(self) -> None:
        stats = {spec.key: 1 for spec in METRICS if spec.place in ("worker", "student")}
        clock = StageClock()
        clock.waited(0.1)
        totals = StageTotals()
        for role in ("teacher", "student"):
            totals.add(role, "g", [clock.told("s")])
        told = page(
            group(held=2),
            members=[worker(**stats), student(**stats)],
            stages=totals.told(),
            checkpoints={"seconds": 1.5, "bytes": 10, "step": 5},
        )
        families = list(text_string_to_metric_families(exposition(told).decode()))
        assert [family.name for family in families] == list(
            dict.fromkeys(f"{s.name}_info" if s.kind == "info" else s.name for s in METRICS)
        )
        assert all(family.samples for family in families)


class TestPage:
    def test_tells_what_the_status_holds(self) -> None:
        told = values(
            page(
                group(),
                members=[worker(samples=640, busy_s=1.5), student(samples=320, starved_s=2, buffered=3)],
                checkpoints={"seconds": 1.5, "bytes": 10, "step": 50},
            )
        )
        assert told[("edldist_teacher_wanted_workers", "big")] == 5
        assert told[("edldist_teacher_workers", "big")] == 3
        assert told[("edldist_teacher_demand_samples_per_second", "big")] == 480.5
        assert told[("edldist_teacher_capacity_samples_per_second", "NVIDIA A100", "big")] == 100
        assert told[("edldist_worker_samples_total", "big", "t1")] == 640
        assert told[("edldist_worker_info", "dense", "cuda:0", "big", "7", "t1")] == 1
        assert told[("edldist_student_starved_seconds_total", "digits", "s1")] == 2
        assert told[("edldist_student_buffered_batches", "digits", "s1")] == 3
        assert told[("edldist_members", "teacher")] == 3 and told[("edldist_members", "student")] == 1
        assert told[("edldist_restarts_total", "student")] == 2
        assert told[("edldist_checkpoint_save_seconds_total",)] == 1.5
        assert told[("edldist_checkpoint_step",)] == 50

    def test_tells_bytes_by_transport(self) -> None:
        told = values(page(members=[worker(sent_shared_bytes=7, sent_socket_bytes=5)]))
        assert told[("edldist_worker_tensor_bytes_total", "sent", "big", "shared", "t1")] == 7
        assert told[("edldist_worker_tensor_bytes_total", "sent", "big", "socket", "t1")] == 5

    def test_what_nobody_knows_is_left_out(self) -> None:
        told = values(page(group("none", wanted=None, demand=None)))
        assert ("edldist_teacher_wanted_workers", "none") not in told
        names = {name for name, *_ in told}
        assert not names & {"edldist_teacher_held_workers", "edldist_checkpoint_step"}

    def test_figures_that_are_no_numbers_are_left_out(self) -> None:
        told = values(page(members=[worker(passes=True, samples="many"), student(failed=None)]))
        left_out = ("edldist_worker_passes", "edldist_worker_samples", "edldist_student_failed")
        assert not any(name.startswith(left_out) for name, *_ in told)

    def test_names_of_any_kind_are_quoted(self) -> None:
        assert values(page(members=[student('s"\n\\2', samples=1)]))[
            ("edldist_student_samples_total", "digits", 's"\n\\2')
        ]

    def test_who_left_lately_is_counted_on_and_has_no_levels(self) -> None:
        told = values(page(gone=[student(samples=320, buffered=3) | {"ago_s": 5.0}]))
        assert told[("edldist_student_samples_total", "digits", "s1")] == 320
        assert not any(name == "edldist_student_buffered_batches" for name, *_ in told)

    def test_events_begin_at_zero_so_that_the_first_one_is_a_growth(self) -> None:
        records = Records()
        assert values(page())[("edldist_events_total", "teacher_lost")] == 0
        records.add(Event(event="teacher_lost", t=0.0))
        told = values(page(**records.happenings.told()))
        assert told[("edldist_events_total", "teacher_lost")] == 1

    def test_stages_are_histograms(self) -> None:
        clock = StageClock()
        for seconds in (0.0004, 0.003, 0.003, 100.0):
            clock.took(seconds)
        clock.waited(0.003)
        totals = StageTotals()
        totals.add("teacher", "big", [clock.told("compute")])
        told = values(page(stages=totals.told()))
        family = "edldist_teacher_stage_seconds"
        expected = {"0.0005": 1, "0.004": 3, "+Inf": 4}
        assert {at: told[f"{family}_bucket", "big", at, "compute"] for at in expected} == expected
        assert told[f"{family}_count", "big", "compute"] == 4
        assert told[f"{family}_sum", "big", "compute"] == pytest.approx(100.0064)
        waits = "edldist_teacher_stage_wait_seconds"
        assert (
            told[f"{waits}_bucket", "big", "0.004", "compute"]
            == told[f"{waits}_count", "big", "compute"]
            == 1
        )
        assert told[f"{waits}_sum", "big", "compute"] == pytest.approx(0.003)

    def test_a_member_with_other_buckets_spoils_nothing(self) -> None:
        odd = {"role": "teacher", "group": "big", "stage": "compute", "sum_s": 1.0, "counts": [1, 2]}
        odd |= {"waited_s": 1.0, "waits": [1]}
        told = values(page(group(), stages=[odd]))
        assert told[("edldist_teacher_workers", "big")] == 3
        assert not any(name.startswith("edldist_teacher_stage") for name, *_ in told)
