"""Nothing that a job writes, shows or tells has a secret in it; and bad keys are refused, at both ends.

One job for both: what is refused leaves words behind, which are looked through with the rest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import zmq
from zmq.utils import z85

from edldist.keys.folder import KeyFolder
from tests.fault.harness import EDLDIST, ROOT, FaultJob, Role, fault_job, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
    pytest.mark.timeout(300),
]
TOKEN = "a-token-that-nobody-guesses-7f3a"


def secrets_of(*folders: Path) -> dict[str, bytes]:
    """Every secret, as it is written and as it lies in memory, by what it is."""
    found = {"the token": TOKEN.encode()}
    for folder in folders:
        for path in folder.glob("*.key"):
            with contextlib.suppress(ValueError):  # one that was cut short
                secret = json.loads(path.read_text())["secret"]
                found |= {f"{path}": secret.encode(), f"{path}, raw": z85.decode(secret)}
    return found


def processes(roles: list[Role]) -> Iterator[psutil.Process]:
    for role in roles:
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(role.pid)
            yield from role.tree()


def told(job: FaultJob, http: str, *places: Path) -> dict[str, bytes]:
    """All that the job shows: to who looks at processes, at its folders, and over HTTP."""
    found: dict[str, bytes] = {}
    for process in processes(job.roles):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                found[f"{name} of {process.pid}"] = Path(f"/proc/{process.pid}/{name}").read_bytes()
    for place in places:
        for folder, _, names in os.walk(place):  # a checkpoint may be renamed meanwhile
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(FileNotFoundError):
                    found[str(path)] = path.read_bytes()
    for page in ("status", "metrics", "history", "healthz", "scaling/teacher", "no-such-page", ""):
        try:
            with urllib.request.urlopen(f"http://{http}/{page}", timeout=20) as answer:
                found[f"/{page}"] = answer.read()
        except urllib.error.HTTPError as exc:
            found[f"/{page}"] = exc.read()
    return found


def ask(job: FaultJob, keys: Path | None) -> subprocess.CompletedProcess[str]:
    """``edldist status`` with a folder of keys."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    options = () if keys is None else ("--keys", str(keys))
    return subprocess.run(
        [*EDLDIST, "status", "--coordinator", job.address, *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


def no_key(keys: KeyFolder) -> None:
    (keys.path / "operator.key").unlink()


def world_readable(keys: KeyFolder) -> None:
    (keys.path / "operator.key").chmod(0o644)


def truncated(keys: KeyFolder) -> None:
    path = keys.path / "operator.key"
    path.write_bytes(path.read_bytes()[:-30])


def cut_within_the_secret(keys: KeyFolder) -> None:
    path = keys.path / "operator.key"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"secret": document["secret"][:-1]}))


def another_roles_in_its_place(keys: KeyFolder) -> None:
    shutil.copy(keys.path / "teacher.key", keys.path / "operator.key")
    (keys.path / "operator.key").chmod(0o600)


def no_list(keys: KeyFolder) -> None:
    (keys.path / "known.json").unlink()


def anybody_may_write_the_list(keys: KeyFolder) -> None:
    (keys.path / "known.json").chmod(0o666)


def retired(keys: KeyFolder) -> None:
    stale = (keys.path / "operator.key").read_bytes()
    keys.rotate(keep_s=3600)
    keys.retire()
    (keys.path / "operator.key").write_bytes(stale)


BAD: list[tuple[Callable[[KeyFolder], None], str]] = [
    (no_key, "has none of the keys that an operator needs"),
    (world_readable, "others can read the secret key"),
    (truncated, "operator.key is damaged. Copy it anew from where edldist keygen wrote it"),
    (cut_within_the_secret, "operator.key is damaged: its two halves are not of one pair"),
    (
        another_roles_in_its_place,
        "is a key for the role 'teacher', and stands where one for 'operator' should",
    ),
    (no_list, "known.json: No such file"),
    (anybody_may_write_the_list, "known.json, and let anybody in: chmod go-w"),
    (retired, "is not among the keys of"),
]


def test_no_secret_is_shown_and_no_bad_key_gets_in(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    keys.make()
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(f"{TOKEN}\n")
    job_folder, record = tmp_path / "job", tmp_path / "record"
    env = {"EDLDIST_HTTP_TOKEN_FILE": str(token), "EDLDIST_OUTPUT": str(record)}
    said: dict[str, bytes] = {}
    with fault_job(job_folder, keys=keys.path) as job:
        coordinator = job.coordinator(env=env)
        http = json.loads((job_folder / "coordinator.json").read_text())["http"]
        job.teacher("t-1")
        student = job.student(samples=400_000, batch_size=20, step_s=0.02)
        job.await_step(3)

        other = KeyFolder(tmp_path / "other")
        other.make()
        folders = [keys.path, other.path]
        spoilt_secrets: dict[str, bytes] = {}
        for spoil, words in BAD:
            spoilt = KeyFolder(tmp_path / spoil.__name__)
            shutil.copytree(keys.path, spoilt.path)
            spoilt_secrets |= secrets_of(spoilt.path)
            spoil(spoilt)
            spoilt_secrets |= secrets_of(spoilt.path)  # those of a new set
            done = ask(job, spoilt.path)
            assert done.returncode == 2 and words in done.stderr, (spoil, done.stderr)
            said[spoil.__name__] = (done.stdout + done.stderr).encode()

        # Good in themselves, and not this job's: both ends say so. Who has none hears nothing.
        strange = ask(job, other.path)
        assert strange.returncode == 1 and "proves none of the keys that this process knows" in strange.stderr
        half = KeyFolder(tmp_path / "half")  # it knows the coordinator, which does not know it
        half.make()
        mixed = [*keys.known(), *(each for each in half.known() if each.role == "operator")]
        half._write([], mixed)
        folders.append(half.path)
        refused = ask(job, half.path)
        assert refused.returncode == 1 and "does not know the key of operator" in refused.stderr
        assert "Give both the same known.json" in refused.stderr
        wait_for("the coordinator to say so", lambda: "turned away a process at" in coordinator.tail())
        silent = ask(job, None)
        assert silent.returncode == 1 and "no coordinator answered" in silent.stderr
        good = ask(job, keys.path)
        assert good.returncode == 0 and "link sealed" in good.stdout
        for name, done in (("strange", strange), ("half", refused), ("silent", silent), ("good", good)):
            said[name] = (done.stdout + done.stderr).encode()

        said |= told(job, http, job_folder, record)
        assert {f"environ of {role.pid}" for role in job.roles} <= said.keys()
        assert len([name for name in said if name.startswith("environ")]) > len(job.roles), "children, too"
        assert b"edldist" in said["/metrics"] and b'"sealed"' in said["/status"]
        assert any("events.jsonl" in name for name in said) and student.alive
    assert len(secrets_of(*folders) | spoilt_secrets) > 60
    found = [
        (what, where)
        for what, secret in (secrets_of(*folders) | spoilt_secrets).items()
        for where, text in said.items()
        if secret in text
    ]
    assert not found
