"""CPUs that a process may use, under the quotas of containers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edldist import cpus
from edldist.cpus import quota_binds, usable_cpus
from edldist_launch.machine.cpu_shares import limit_threads


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


def groups(tmp_path: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    (tmp_path / "own").write_text(own)
    return tmp_path / "cgroup", tmp_path / "own"


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 16),
        ("0::/\n", {"cpu.max": "200000 100000"}, 2),  # in a container's own namespace
        ("0::/a/b\n", {"a/cpu.max": "350000 100000", "a/b/cpu.max": "max 100000"}, 3),  # by a group above
        ("0::/a/b\n", {"cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        ("0::/a\n", {"a/cpu.max": "50000 100000"}, 1),
        ("0::/a\n", {"a/cpu.max": "9900000 100000"}, 16),
        ("0::/a\n", {"a/cpu.max": "garbage"}, 16),
        ("3:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "-1"}, 16),
        (
            "9:memory:/a\n3:cpu,cpuacct:/a\n0::/\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "500000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            5,
        ),
        (  # the host's path, of which a container sees the end as its root
            "1:cpu:/docker/f00\n",
            {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("", {}, 16),
    ],
)
def test_the_smallest_quota_above_a_process_counts(
    tmp_path: Path, own: str, files: dict[str, str], expected: int
) -> None:
    assert usable_cpus(*groups(tmp_path, own, files)) == expected


def test_threads_are_shared_out_of_what_the_quota_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, own = groups(tmp_path, "0::/\n", {"cpu.max": "400000 100000"})
    monkeypatch.setattr(usable_cpus, "__defaults__", (where, own))
    assert quota_binds()
    environment: dict[str, str] = {}
    assert limit_threads(environment, 2) == 2
    assert environment == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setattr(usable_cpus, "__defaults__", (where / "absent", own))
    assert not quota_binds()


def test_this_machine_has_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= cpus.usable_cpus() <= (os.cpu_count() or 1)
