"""What ``gpu`` and ``auto`` stand for."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

import edldist_launch.machine.rank_count
from edldist.cpus import usable_cpus
from edldist.errors import ConfigError
from edldist_launch.machine.rank_count import rank_count


def machine(monkeypatch: pytest.MonkeyPatch, counted: str) -> None:
    def run(*command: Any, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, stdout=counted)

    monkeypatch.setattr(edldist_launch.machine.rank_count.subprocess, "run", run)


def test_a_number_is_itself_and_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "nobody asks")
    assert rank_count(3, "k") == 3


def test_they_stand_for_the_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "4\n")
    assert (rank_count("gpu", "k"), rank_count("auto", "k")) == (4, 4)


def test_without_accelerators_auto_is_the_cores_and_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "0\n")
    assert rank_count("auto", "k") == usable_cpus()
    with pytest.raises(
        ConfigError, match="student.nproc_per_node: gpu, but torch finds no accelerator on this machine"
    ):
        rank_count("gpu", "student.nproc_per_node")


def test_a_torch_that_cannot_be_asked_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "Segmentation fault")
    with pytest.raises(ConfigError, match="--nproc-per-node: auto, but the accelerators cannot be counted"):
        rank_count("auto", "--nproc-per-node")


def test_the_question_is_one_that_this_torch_answers() -> None:
    assert rank_count("auto", "k") >= 1
