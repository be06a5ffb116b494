"""``edldist doctor`` on a healthy machine, and on machines that really lack something.

The ills are real: limits of the process, mount, network and host name namespaces, a clock that is wrong.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edldist_launch.plan.commands import own_command
from tests.integration.members import Running

pytestmark = pytest.mark.timeout(240)

BROKEN_TORCH = "raise ImportError('libcudart.so.12: cannot open shared object file: No such file')\n"


@dataclass(frozen=True)
class Ill:
    """A machine that lacks something, and what should be said of it.

    Attributes:
        prepare: shell commands that make it ill, before the doctor is run in the same shell.
        unshare: namespaces of its own.
    """

    prepare: str
    check: str
    level: str
    says: str
    unshare: str = ""


ILLS = {
    "few descriptors": Ill("ulimit -n 64", "descriptors", "fail", "64 (at most 64) open files"),
    "no room in /dev/shm": Ill(
        "mount -t tmpfs -o size=4m tmpfs /dev/shm", "shared memory", "fail", "die of a bus error", "-m"
    ),
    "a container's /dev/shm": Ill(
        "mount -t tmpfs -o size=64m tmpfs /dev/shm", "shared memory", "warn", "/dev/shm has 64 MiB", "-m"
    ),
    "no /dev/shm": Ill(
        "mount -t tmpfs -o ro tmpfs /dev/shm", "shared memory", "fail", "Read-only file system", "-m"
    ),
    "a wrong clock": Ill("", "clock skew", "fail", " s ahead of the coordinator's clock", ""),
    "a name that leads nowhere": Ill(
        "echo 'nameserver 127.0.0.1' > resolv; mount --bind resolv /etc/resolv.conf; "
        "echo '127.0.0.1 localhost' > hosts; mount --bind hosts /etc/hosts; hostname no-such-host",
        "name",
        "warn",
        "no-such-host, the name of this host, leads nowhere",
        "-m -u",
    ),
    "a name that leads elsewhere": Ill(
        "echo '192.0.2.7 elsewhere' > hosts; mount --bind hosts /etc/hosts; hostname elsewhere",
        "name",
        "warn",
        "elsewhere leads to 192.0.2.7, which is not this host's",
        "-m -u",
    ),
    "an output that cannot be written": Ill(
        "mkdir out; mount -t tmpfs -o ro tmpfs out", "output", "fail", "Read-only file system", "-m"
    ),
    "a full disk": Ill(
        "mkdir out; mount -t tmpfs -o size=8m tmpfs out", "output", "fail", "no checkpoint fits", "-m"
    ),
    "no network at all": Ill("", "ports", "fail", "no connection over 127.0.0.1", "-n"),
    "a broken torch": Ill(
        "",
        "torch",
        "fail",
        "torch cannot be used: ImportError: libcudart.so.12",
    ),
    "a silent coordinator": Ill("", "coordinator", "fail", "none answers at tcp://127.0.0.1:9"),
}


@pytest.fixture(scope="module")
def coordinator() -> Iterator[str]:
    """The address of one that runs in this process, whose clock is right."""
    running = Running()
    yield running.address
    running.stop()


@pytest.fixture(scope="module")
def reports(
    coordinator: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.CompletedProcess[str]]:
    """What the doctor says on each machine.

    Most of it would be importing torch: machines that fail anyway have a broken one besides.
    """
    started = {}
    for name, ill in {"healthy": Ill("", "", "", ""), **ILLS}.items():
        folder = tmp_path_factory.mktemp("machine")
        command = own_command("doctor", "--json")
        if name in ("healthy", "a wrong clock"):
            command += ["--coordinator", coordinator]
        if name == "a silent coordinator":
            command += ["--coordinator", "tcp://127.0.0.1:9"]
        if name == "a wrong clock":
            if shutil.which("faketime") is None:
                continue
            command = ["faketime", "-f", "+3600s", *command]
        words = " ".join(f"'{word}'" for word in command)
        shell = ["sh", "-c", f"{ill.prepare or ':'}; exec {words}"]
        if ill.unshare:
            if os.geteuid() != 0 or shutil.which("unshare") is None:
                continue
            shell = ["unshare", *ill.unshare.split(), *shell]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
        environment |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        if ill.level == "fail":
            (broken := folder / "broken" / "torch").mkdir(parents=True)
            (broken / "__init__.py").write_text(BROKEN_TORCH)
            environment["PYTHONPATH"] = str(broken.parent)
        started[name] = subprocess.Popen(
            shell, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    done = {}
    for name, process in started.items():
        output, errors = process.communicate()
        done[name] = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    return done


def test_a_healthy_machine_is_told_so(reports: dict[str, subprocess.CompletedProcess[str]]) -> None:
    healthy = reports["healthy"]
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    findings = {found["check"]: found for found in json.loads(healthy.stdout)}
    assert list(findings) == [
        *("python", "torch", "devices", "extras", "cpus", "memory", "descriptors", "processes"),
        *("shared memory", "memory files", "ports", "name", "clock", "coordinator", "clock skew"),
        *("output", "temporary files", "slurm", "kubernetes", "containers"),
    ]
    assert "answers, 0 members" in findings["coordinator"]["said"]
    for name, found in findings.items():
        if name not in ("slurm", "kubernetes", "name", "ports", "shared memory"):  # as this machine is
            assert found["level"] == "ok", found


@pytest.mark.parametrize("name", ILLS)
def test_what_a_machine_lacks_is_named_with_what_to_do(
    reports: dict[str, subprocess.CompletedProcess[str]], name: str
) -> None:
    if name not in reports:
        pytest.skip("making a machine ill needs root and unshare, or faketime")
    ill, report = ILLS[name], reports[name]
    found = [each for each in json.loads(report.stdout) if each["check"] == ill.check]
    assert [each["level"] for each in found] == [ill.level], report.stdout + report.stderr
    assert ill.says in found[0]["said"] and found[0]["remedy"]
    if (skew := re.search(r"is ([\d.]+) s ahead", found[0]["said"])) is not None:
        assert 3595 <= float(skew[1]) <= 3600  # what is certain: all but the time that the answer took
    assert report.returncode == (1 if ill.level == "fail" else 0), report.stdout


def test_a_machine_that_is_looked_at_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = subprocess.run(own_command("doctor"), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert "in which out would be made, can be written" in done.stdout
    assert done.stdout.splitlines()[-1] in ("all is well",) or "to look at" in done.stdout
