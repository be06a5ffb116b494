"""The state of a job in Prometheus' text format. Pure: the status page in, the page for a scraper out."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from itertools import accumulate, groupby
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edldist.coordinator.metrics.catalog import METRICS
from edldist.coordinator.metrics.spec import MetricSpec
from edldist.observe.stages import BOUNDS_S
from edldist.wire.messages import PROTOCOL

__all__ = ["CONTENT_TYPE", "exposition"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_TOLD_OF_WORKERS = ("version", "device", "codec")
_BUCKETS = [*map(repr, BOUNDS_S), "+Inf"]


def exposition(page: Mapping[str, Any]) -> bytes:
    """The state of the job as a scraper reads it.

    Args:
        page: what ``/status`` tells.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(page))
    return generate_latest(registry)


class _Page(Collector):
    def __init__(self, page: Mapping[str, Any]) -> None:
        self._page = page

    def collect(self) -> Iterable[Metric]:
        for _, specs in groupby(METRICS, lambda spec: spec.name):
            yield self._family(list(specs))

    def _family(self, specs: list[MetricSpec]) -> Metric:
        first = specs[0]
        labels = list(first.labels)
        if first.kind == "histogram":
            histogram = HistogramMetricFamily(first.name, first.help, labels=labels)
            counted, summed = ("waits", "waited_s") if first.place == "queue" else ("counts", "sum_s")
            for stage in self._page["stages"]:
                if stage["role"] == first.key and len(stage[counted]) == len(_BUCKETS):
                    buckets = list(zip(_BUCKETS, accumulate(stage[counted]), strict=True))
                    values = [str(stage[label]) for label in labels]
                    histogram.add_metric(values, buckets, stage[summed])
            return histogram
        if first.kind == "info":
            info = InfoMetricFamily(first.name, first.help, labels=labels)
            for own, told in self._told(first):
                info.add_metric(own, told)
            return info
        made = CounterMetricFamily if first.kind == "counter" else GaugeMetricFamily
        family = made(first.name, first.help, labels=labels)
        for spec in specs:
            for own, value in self._figures(spec):
                if isinstance(value, int | float) and not isinstance(value, bool):
                    family.add_metric([*own, *(value for _, value in spec.more)], value)
        return family

    def _told(self, spec: MetricSpec) -> Iterator[tuple[list[str], dict[str, str]]]:
        if spec.place == "coordinator":
            yield [], _build()
            return
        for member in self._page["members"]:
            if member["role"] == "teacher":
                told = {key: str(member["info"].get(key, "")) for key in _TOLD_OF_WORKERS}
                yield _labels_of(spec, member), told

    def _figures(self, spec: MetricSpec) -> Iterator[tuple[list[str], Any]]:
        """The figures of a metric, with the values of its place's labels; a member's may be of any type."""
        page, key = self._page, spec.key
        if spec.place == "coordinator":
            yield [], page[key]
        elif spec.place == "checkpoint":
            yield [], page["checkpoints"][key]
        elif spec.place in ("restarts", "event"):
            yield from (([name], value) for name, value in sorted(page[key].items()))
        elif spec.place == "role":
            yield from (([role.removesuffix("s")], value) for role, value in page[key].items())
        elif spec.place == "group":
            yield from (([group["name"]], group[key]) for group in page["groups"])
        elif spec.place == "device":
            for group in page["groups"]:
                yield from (([group["name"], device], value) for device, value in group[key].items())
        else:
            gone = page["gone"] if spec.kind == "counter" else []  # its levels went with it
            for member in (*page["members"], *gone):
                if member["role"] == ("teacher" if spec.place == "worker" else spec.place):
                    yield _labels_of(spec, member), member["stats"].get(key)


def _labels_of(spec: MetricSpec, member: Mapping[str, Any]) -> list[str]:
    return [member["id"], member["group"] if spec.place == "worker" else member["job"]]


def _build() -> dict[str, str]:
    try:
        version = metadata.version("edldist")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return {"version": version, "protocol": PROTOCOL.name, "python": platform.python_version()}
