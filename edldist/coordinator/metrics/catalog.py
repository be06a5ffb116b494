"""Every metric that the coordinator tells Prometheus: one list, of which the page for a scraper, the table in
``docs/metrics.md``, the Grafana dashboard and the alert rules are made.

Names follow Prometheus' conventions: the unit is in the name, what only grows ends in ``_total``. A label has
few values at any moment: a worker, a rank, a teacher group, a job. Nothing that a script reports is a label.
"""

from __future__ import annotations

from collections.abc import Sequence

from edldist.coordinator.metrics.job import JOB
from edldist.coordinator.metrics.spec import MetricSpec
from edldist.coordinator.metrics.students import STUDENTS
from edldist.coordinator.metrics.teachers import TEACHERS

__all__ = ["METRICS"]

METRICS: Sequence[MetricSpec] = (*JOB, *TEACHERS, *STUDENTS)
"""All of them. Those of one name follow each other, and differ in the labels that they have ``more``."""
