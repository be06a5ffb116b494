"""Debian's Prometheus over a job: it takes the rules, and its figures are those of ``result.json``."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from edldist.wire.messages import STAGES
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.record.folder import open_record
from edldist_launch.view.scribe import Scribe
from tests.harness import local_job
from tests.integration.members import WITHIN_S, until

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "monitoring"
BATCHES, SAMPLES = 24, 8


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edldist" / "prometheus"


@pytest.fixture(scope="module")
def tools() -> dict[str, str]:
    """Where prometheus and promtool are; fetched if they are missing and this machine can."""
    names = ("prometheus", "promtool")
    found = {name: path for name in names if (path := shutil.which(name))}
    if len(found) == len(names):
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        pytest.skip("no prometheus here, and no apt-get to fetch it")
    install = Path(__file__).with_name("install.sh")
    done = subprocess.run([str(install), str(_cache())], capture_output=True, text=True, timeout=150)
    if done.returncode:
        pytest.skip(f"prometheus cannot be fetched: {done.stderr.strip()[-300:]}")
    return {name: str(_cache() / "usr" / "bin" / name) for name in names}


def checked(*command: str | Path, given: bytes | None = None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, timeout=WITHIN_S, cwd=MONITORING)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_promtool_takes_the_rules_and_the_configuration(tools: dict[str, str]) -> None:
    assert "SUCCESS" in checked(tools["promtool"], "check", "rules", "rules.yaml")
    assert "SUCCESS" in checked(tools["promtool"], "check", "config", "prometheus.yaml")


def test_the_alerts_say_what_they_should_of_jobs_that_go_wrong_and_well(tools: dict[str, str]) -> None:
    assert "SUCCESS" in checked(tools["promtool"], "test", "rules", "rules_test.yaml")


class Prometheus:
    """A server that scrapes one address four times a second, at a port of its own."""

    def __init__(self, tool: str, folder: Path, target: str) -> None:
        job = {"job_name": "edldist", "static_configs": [{"targets": [target]}]}
        rules = str(MONITORING / "rules.yaml")
        settings = {"global": {"scrape_interval": "250ms"}, "scrape_configs": [job], "rule_files": [rules]}
        file = folder / "prometheus.yaml"
        file.write_text(json.dumps(settings))
        self._log = (folder / "prometheus.log").open("w+")
        command = [tool, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
        command += ["--web.listen-address=127.0.0.1:0"]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._address = ""

    def serving(self) -> bool:
        """Whether it listens, which its log tells, with the port that it was given."""
        assert self._process.poll() is None, Path(self._log.name).read_text()
        found = re.search(r'msg="Listening on" address=(\S+)', Path(self._log.name).read_text())
        self._address = found[1] if found else ""
        return bool(found)

    def ask(self, path: str, **parameters: str) -> Any:
        where = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(where, timeout=WITHIN_S) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def value(self, query: str) -> float | None:
        """The one figure that a query comes to; None if there is none."""
        found = self.ask("query", query=query)["result"]
        assert len(found) <= 1, f"{query} has several answers: {found}"
        return float(found[0]["value"][1]) if found else None

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(WITHIN_S)
        self._log.close()


@pytest.fixture
def prometheus_of(tools: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    started: list[Prometheus] = []

    def start(target: str) -> Prometheus:
        started.append(Prometheus(tools["prometheus"], tmp_path, target))
        until(started[0].serving, "that Prometheus listens")
        return started[0]

    yield start
    for each in started:
        each.close()


@pytest.mark.timeout(240)
def test_prometheus_has_the_figures_of_the_result(
    tools: dict[str, str], prometheus_of: Any, tmp_path: Path
) -> None:
    batches = [torch.arange(SAMPLES) + SAMPLES * number for number in range(BATCHES)]
    output = tmp_path / "out"
    with (
        open_record(output) as folder,
        Scribe(folder) as scribe,
        local_job(ZmqTransport(), http="127.0.0.1:0", listener=scribe.tell) as job,
    ):
        assert job.http_address is not None
        page = urllib.request.urlopen(f"http://{job.http_address}/metrics", timeout=WITHIN_S).read()
        assert checked(tools["promtool"], "check", "metrics", given=page) == ""
        prometheus = prometheus_of(job.http_address)
        job.teacher()
        loader = job.loader(batches, inputs=lambda batch: {"id": batch})
        for epoch in range(2):
            assert sum(len(batch) for batch, _ in loader) == BATCHES * SAMPLES, epoch
        until(lambda: prometheus.value("edldist_worker_samples_total"), "a scrape of the worker at work")
        loader.close()
        until(
            lambda: (
                (output / "result.json").exists()
                and prometheus.value('edldist_events_total{event="student_left"}') == 1
            ),
            "a scrape after the student has left",
        )
        result = json.loads((output / "result.json").read_text())

        def figure(query: str) -> float | None:
            return prometheus.value(f"sum({query})")

        assert figure("edldist_student_samples_total") == result["samples"] == 2 * BATCHES * SAMPLES
        assert figure("edldist_student_batches_total") == 2 * BATCHES
        assert figure("edldist_student_done_tasks_total") == result["tasks"]["done"] > 0
        for key, series in (
            ("requeued", "edldist_student_requeued_tasks_total"),
            ("duplicates", "edldist_student_duplicate_answers_total"),
            ("hedged", "edldist_student_hedged_tasks_total"),
            ("failed", "edldist_student_failed_tasks_total"),
        ):
            assert figure(series) == result["tasks"][key], key
        for key, series in (
            ("starved_s", "edldist_student_starved_seconds_total"),
            ("backpressure_s", "edldist_student_backpressure_seconds_total"),
        ):
            assert figure(series) == pytest.approx(result[key], abs=1e-3), key
        assert figure('edldist_events_total{event="teacher_joined"}') == result["teachers"]["joined"] == 1
        assert figure('edldist_restarts_total{role="student"}') == result["student_restarts"] == 0
        answers = figure('edldist_student_stage_seconds_count{stage="answer"}')
        assert answers is not None and answers >= result["tasks"]["done"]
        assert figure('edldist_student_stage_seconds_count{stage="buffer"}') == 2 * BATCHES
        timed = [figure(f'edldist_teacher_stage_seconds_count{{stage="{stage}"}}') for stage in STAGES]
        assert 0 < timed[0] <= result["tasks"]["done"] and len(set(timed)) == 1, "of the tasks that are timed"
        sent = figure('edldist_worker_tensor_bytes_total{direction="sent"}')
        assert sent == figure('edldist_student_tensor_bytes_total{direction="received"}') > 0
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) > 10 and not [rule for rule in rules if rule.get("lastError")]
