"""How findings are gathered and shown; what they find is tried on machines (integration/test_doctor)."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from edldist_launch.doctor import engines, examination, network
from edldist_launch.doctor.examination import examine
from edldist_launch.doctor.finding import Finding, fail, ok, warn
from edldist_launch.doctor.report import show_findings


def test_findings_come_in_order_with_what_to_do_below() -> None:
    told = io.StringIO()
    findings = [ok("a", "good"), warn("b", "so so", "do this"), fail("c", "bad \x1b[2J", "do that")]
    assert show_findings(findings, told, as_json=False) is True
    assert told.getvalue().splitlines() == [
        "ok   a               good",
        "warn b               so so",
        "                     -> do this",
        "fail c               bad \ufffd[2J",
        "                     -> do that",
        "1 to mend before a job runs here, 1 to look at",
    ]


@pytest.mark.parametrize(
    ("findings", "last"),
    [([ok("a", "good")], "all is well"), ([warn("a", "so so", "x")], "jobs run here; 1 to look at")],
)
def test_what_is_no_fail_lets_jobs_run(findings: list[Finding], last: str) -> None:
    told = io.StringIO()
    assert show_findings(findings, told, as_json=False) is False
    assert told.getvalue().splitlines()[-1] == last


def test_json_has_every_finding() -> None:
    told = io.StringIO()
    assert show_findings([fail("c", "bad", "do that")], told, as_json=True) is True
    assert json.loads(told.getvalue()) == [
        {"check": "c", "level": "fail", "said": "bad", "remedy": "do that"}
    ]


def test_a_check_that_hangs_or_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    released = threading.Event()

    def hangs() -> list[Finding]:
        released.wait()
        return []

    def raises() -> list[Finding]:
        raise OSError(5, "Input/output error")

    for name in dir(examination):
        if name.startswith("check_"):
            monkeypatch.setattr(examination, name, lambda *given: [])
    monkeypatch.setattr(examination, "check_name", hangs)
    monkeypatch.setattr(examination, "check_memory", raises)
    monkeypatch.setattr(examination, "MOST_S", 0.2)
    begun = time.monotonic()
    found = list(examine(tmp_path, None))
    released.set()
    assert time.monotonic() - begun < 10
    assert [(each.check, each.level) for each in found] == [("memory", "fail"), ("name", "fail")]
    assert found[0].said == "it could not be looked at: OSError: [Errno 5] Input/output error"
    assert found[1].said == "no answer within 0 s"


@pytest.mark.parametrize(
    ("script", "level", "said"),
    [
        ("echo 'debug* up 4'; echo 'long up 2'", "ok", "partitions: debug*, long"),
        (
            "echo 'sinfo: error' >&2; echo 'Unable to contact slurm controller' >&2; exit 1",
            "warn",
            "Unable to",
        ),
    ],
)
def test_slurm_is_asked_for_its_partitions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, level: str, said: str
) -> None:
    for name in ("sbatch", "sinfo"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (found,) = engines.check_slurm()
    assert found.level == level and said in found.said


CONFIG = "KillWait                = 10 sec\nPreemptMode             = REQUEUE"
PARTITIONS = """\
PartitionName=debug Default=YES GraceTime=0 PreemptMode=OFF
PartitionName=spot GraceTime=5 PreemptMode=REQUEUE MaxTime=1
PartitionName=slow GraceTime=60 PreemptMode=REQUEUE"""


@pytest.mark.parametrize(
    ("kill_s", "said"),
    [
        (30.0, ["KillWait is 10 s", "partition spot is 5 s"]),
        (8.0, ["partition spot is 5 s"]),
        (4.5, []),
        (90.0, ["KillWait is 10 s", "partition spot is 5 s", "partition slow is 60 s"]),
    ],
)
def test_a_slurm_that_kills_too_early_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kill_s: float, said: list[str]
) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho 'debug* up 4'\n")
    case = f'#!/bin/sh\ncase $2 in config) echo "{CONFIG}" ;; partition) echo "{PARTITIONS}" ;; esac\n'
    (tmp_path / "scontrol").write_text(case)
    for name in ("sbatch", "sinfo", "scontrol"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    reached, *times = engines.check_slurm(kill_s)
    assert reached.level == "ok"
    assert [each.level for each in times] == ["warn"] * bool(said)
    for each in times:
        assert all(words in each.said for words in said) and each.said.count(" s (") == len(said)


@pytest.mark.parametrize(
    ("taken", "level", "said", "remedy"),
    [
        ((), "ok", "7070 and 7071 are free", ""),
        ((7071,), "ok", "7071 is in use: a coordinator serves its status at another", ""),
        ((7070,), "warn", "7070, where edldist coordinator listens, is in use", "--bind"),
        ((7070, 7071), "warn", "7070, where edldist coordinator listens, is in use", "--bind"),
    ],
)
def test_a_taken_port_matters_where_nobody_takes_another(
    monkeypatch: pytest.MonkeyPatch, taken: tuple[int, ...], level: str, said: str, remedy: str
) -> None:
    monkeypatch.setattr(network, "_taken", lambda port: port in taken)
    (found,) = network.check_ports()
    assert found.level == level and said in found.said
    assert remedy in (found.remedy or "") and "--http" not in (found.remedy or "")


@pytest.mark.parametrize(
    ("namespace", "allowed", "level", "said"),
    [
        ("exit 0", "true", "ok", "may run jobs in namespace lab"),
        (
            "exit 0",
            "false",
            "warn",
            "in namespace lab you may not: create jobs.batch, create deployments.apps",
        ),
        ("echo 'Error (NotFound): no lab' >&2; exit 1", "true", "warn", "the cluster has no namespace lab"),
        ("echo 'Error (Forbidden): no' >&2; exit 1", "true", "ok", "may run jobs in namespace lab"),
        (
            "echo 'dial tcp: i/o timeout' >&2; exit 1",
            "true",
            "warn",
            "Kubernetes cannot be reached: dial tcp",  # not what else kubectl says then
        ),
    ],
)
def test_kubernetes_is_asked_what_one_may_do_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: str, allowed: str, level: str, said: str
) -> None:
    script = f"""#!{sys.executable}
import json, sys
words = sys.argv[1:]
if words[0] == "config":
    print("lab")
elif words[0] == "get":
    print("{{}}", flush=True)
    import os
    os.execv("/bin/sh", ["sh", "-c", {namespace!r}])
elif {namespace!r}.count("dial"):
    sys.exit("error validating data: turn validation off")
else:
    given = json.load(sys.stdin)
    for each in given["items"]:
        each["status"] = {{"allowed": {allowed.capitalize()}}}
        print(json.dumps(each, indent=2))
"""
    (tmp_path / "kubectl").write_text(script)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (found,) = engines.check_kubernetes()
    assert found.level == level and said in found.said, found


def test_a_client_that_is_not_here_is_no_lack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for check in (engines.check_slurm, engines.check_kubernetes, engines.check_podman):
        (found,) = check()
        assert found.level == "ok" and "here" in found.said


def test_a_clock_from_before_is_a_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.time, "time", lambda: 86_400.0)
    (found,) = network.check_clock()
    assert (found.level, found.said[:10]) == ("fail", "it says 19")
