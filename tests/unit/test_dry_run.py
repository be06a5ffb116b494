"""What a job file would do, without doing it: edldist run --dry-run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist_launch.job.dry_run import describe_run
from tests.unit.command_line import edldist


def test_a_dry_run_prints_a_job_file_that_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / "train.py").touch()
    (tmp_path / "a.py").write_text("def b(): pass\n")
    (jobs / "job.yaml").write_text(
        "name: toy\nteachers: [{model: 'a:b', replicas: 3}]\n"
        "student: {script: train.py, nproc_per_node: auto}\n"
    )
    settings = ("--set", "student.args=[--lr, 1]")
    done = edldist("run", "jobs/job.yaml", "--dry-run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[:3]
    assert said[:2] == ["# output: out/toy", "# teacher workers: 3 of teacher"]
    ranks = int(re.fullmatch(r"# student ranks: (\d+) \(1 x \1\)", said[2])[1])  # type: ignore[index]
    (tmp_path / "resolved.yaml").write_text(done.stdout)
    job = load_job(tmp_path / "resolved.yaml")
    assert (job.student.script, job.student.args) == (str(jobs / "train.py"), ["--lr", "1"])
    assert job.student.nproc_per_node == ranks >= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "jobs", "resolved.yaml"]
    again = edldist("run", "resolved.yaml", "--dry-run", cwd=tmp_path)
    assert again.stdout == done.stdout


def test_a_dry_run_refuses_what_a_run_would_and_says_what_becomes_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    (tmp_path / "a.py").write_text("def b(): pass\n")
    (tmp_path / "job.yaml").write_text("name: toy\nteachers: [{model: 'a:b'}]\nstudent: {script: train.py}\n")
    (tmp_path / "out").mkdir()
    text = edldist("run", "job.yaml", "--dry-run", cwd=tmp_path).stdout
    (tmp_path / "out" / "job.yaml").write_text(text)
    (tmp_path / "out" / "result.json").write_text('{"status": "completed", "steps": 9}')
    same = edldist("run", "job.yaml", "--dry-run", "--output", "out", cwd=tmp_path)
    assert "# earlier run in that folder: finished; nothing would be started\n" in same.stdout
    changed = ("--set", "on_poison=skip", "--output", "out")
    refused = edldist("run", "job.yaml", "--dry-run", *changed, cwd=tmp_path)
    assert refused.returncode == 2 and "on_poison: raise -> skip" in refused.stderr
    extended = edldist("run", "job.yaml", "--dry-run", "--extend", *changed, cwd=tmp_path)
    assert "# changed since then: on_poison: raise -> skip\n" in extended.stdout
    missing = edldist("run", "job.yaml", "--dry-run", "--set", "student.script=x.py", cwd=tmp_path)
    assert missing.returncode == 2 and "student.script: no such file: x.py" in missing.stderr


@pytest.mark.parametrize(
    ("teacher", "code", "words"),
    [
        ("model: 'a:c'", 2, "teachers[0].model: model a:c: a has no 'c'"),
        ("model: 'gone:b'", 2, "teachers[0].model: model gone:b: no module named 'gone' in "),
        ("model: 'a:b', kwargs: {size: 3}", 2, "b cannot be called with size"),
        ("model: 'a:b', dataset: 'a:data'", 2, "teachers[0].dataset: dataset a:data: a has no 'data'"),
        ("model: 'elsewhere:b', env: {PYTHONPATH: more}", 0, "name: toy"),
        ("model: 'hf:gone'", 2, "teachers[0].model: no such folder: gone"),
        (
            "model: 'vllm:http://h:8000', kwargs: {retries: -1}",
            2,
            "teachers[0]: model vllm:http://h:8000: retries",
        ),
        (
            "model: 'gpu:b'",
            0,
            "# teachers[0].model: importing it raises here, without a device: OSError: no device",
        ),
        (
            "model: 'end:b'",
            0,
            "# teachers[0].model: importing ended the process that looked for them: my end",
        ),
        ("model: 'hangs:b'", 0, "# teachers[0].model: not looked for, as importing took more than 1 s"),
    ],
)
def test_a_dry_run_says_what_becomes_of_the_models(
    teacher: str, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {
        "a": "print('not for the terminal')\ndef b(): raise SystemExit('only looked for')\n",
        "more/elsewhere": "b = dict\n",
        "gpu": "import os\nassert not os.environ['CUDA_VISIBLE_DEVICES']\nraise OSError('no device')\n",
        "end": "import os\nos.write(2, b'my end')\nos._exit(1)\n",
        "hangs": "import time\ntime.sleep(60)\n",
        "queue": "raise SystemExit('of the user, not of Python')\n",
        "train": "",
    }
    (tmp_path / "more").mkdir()
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "job.yaml").write_text(
        f"name: toy\nteachers: [{{{teacher}}}]\nstudent: {{script: train.py}}\n"
    )
    monkeypatch.chdir(tmp_path)
    if "hangs" in teacher:
        monkeypatch.setattr("edldist_launch.job.factories.IMPORT_S", 1.0)
    if code == 0:
        assert words in describe_run(tmp_path / "job.yaml", (), None, "resume")
    else:
        with pytest.raises(ConfigError, match=re.escape(words)):
            describe_run(tmp_path / "job.yaml", (), None, "resume")
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_dry_run_leaves_models_alone_that_a_preparation_may_make(tmp_path: Path) -> None:
    for name in ("train.py", "prepare.py"):
        (tmp_path / name).touch()
    (tmp_path / "job.yaml").write_text(
        "name: toy\nprepare: {script: prepare.py}\nteachers: [{model: 'made:b'}]\n"
        "student: {script: train.py}\n"
    )
    assert "model: made:b" in describe_run(tmp_path / "job.yaml", (), None, "resume")
