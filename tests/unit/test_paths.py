"""Where the paths of a job file lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist_launch.plan.paths import check_weights, resolve_paths

TEXT = """\
name: j
teachers: [{model: "a:b", weights: w.pt}]
student: {script: s.py}
prepare: {script: p.py}
"""


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("here", "jobs"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "jobs" / "job.yaml"
    path.write_text(TEXT)
    return path


def resolve(job_file: Path) -> JobConfig:
    return resolve_paths(load_job(job_file), job_file)


def test_a_path_leads_from_here_or_from_the_job_file(job_file: Path) -> None:
    for path in (Path("s.py"), job_file.with_name("p.py"), job_file.with_name("w.pt")):
        path.write_text("")
    job = resolve(job_file)
    assert job.student.script == str(Path.cwd() / "s.py")  # whole: job.yaml is read from elsewhere, too
    assert job.prepare is not None and Path(job.prepare.script) == job_file.with_name("p.py")
    assert job.teachers[0].weights == str(job_file.with_name("w.pt"))


def test_weights_may_come_into_being_later(job_file: Path) -> None:
    for name in ("s.py", "p.py"):
        Path(name).write_text("")
    job = resolve(job_file)
    assert job.teachers[0].weights == "w.pt"
    with pytest.raises(
        ConfigError, match=r"teachers\[0\].weights: no such file or folder: w.pt \(looked from .*jobs\)"
    ):
        check_weights(job, job_file.parent)
    job_file.with_name("w.pt").write_text("")  # what prepare did
    again = resolve_paths(job, job_file)
    assert again.teachers[0].weights == str(job_file.with_name("w.pt"))
    check_weights(again, job_file.parent)


def test_weights_may_be_a_folder_and_a_script_may_not(job_file: Path) -> None:
    for name in ("s.py", "p.py"):
        Path(name).write_text("")
    job_file.with_name("w.pt").mkdir()
    assert resolve(job_file).teachers[0].weights == str(job_file.with_name("w.pt"))
    Path("s.py").unlink()
    Path("s.py").mkdir()
    with pytest.raises(ConfigError, match=r"student.script: .*s.py is a folder"):
        resolve(job_file)


def test_the_folder_of_a_model_is_found_as_weights_are_and_its_class_kept(job_file: Path) -> None:
    Path("s.py").write_text("")
    job_file.write_text("name: j\nteachers: [{model: 'hf:m#AutoModel'}]\nstudent: {script: s.py}\n")
    assert resolve(job_file).teachers[0].model == "hf:m#AutoModel"
    with pytest.raises(ConfigError) as refused:
        check_weights(resolve(job_file), job_file.parent)
    both = f"looked from {Path.cwd()} and {job_file.parent}"
    assert str(refused.value) == f"teachers[0].model: no such folder: m ({both})"
    job_file.with_name("m").mkdir()
    assert resolve(job_file).teachers[0].model == f"hf:{job_file.with_name('m')}#AutoModel"
    check_weights(resolve(job_file), job_file.parent)


def test_the_files_of_an_engine_are_found_as_weights_are(job_file: Path) -> None:
    Path("s.py").write_text("")
    job_file.write_text(
        "name: j\nteachers: [{model: 'vllm:http://h:8000#m', kwargs: {tokenizer: t, api_key_file: k, "
        "retries: 3}}]\nstudent: {script: s.py}\n"
    )
    job_file.with_name("t").mkdir()
    teacher = resolve(job_file).teachers[0]
    assert teacher.model == "vllm:http://h:8000#m"
    assert teacher.kwargs == {"tokenizer": str(job_file.with_name("t")), "api_key_file": "k", "retries": 3}
    check_weights(resolve(job_file), job_file.parent)


def test_a_script_that_is_nowhere_is_refused_with_both_places(job_file: Path) -> None:
    Path("s.py").write_text("")
    with pytest.raises(ConfigError) as refused:
        resolve(job_file)
    assert (
        str(refused.value)
        == f"prepare.script: no such file: p.py (looked from {Path.cwd()} and {job_file.parent})"
    )


@pytest.mark.parametrize(("name", "key"), [("s.py", "student.script"), ("w.pt", r"teachers\[0\].weights")])
def test_two_files_of_that_name_are_refused_with_both(job_file: Path, name: str, key: str) -> None:
    for file in ("s.py", "p.py", name):
        Path(file).write_text("")
    job_file.with_name(name).write_text("")
    with pytest.raises(ConfigError, match=f"{key}: {name} could be .*here/{name} or .*jobs/{name}"):
        resolve(job_file)


def test_a_job_file_of_this_folder_has_one_place_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job_file: Path
) -> None:
    monkeypatch.chdir(job_file.parent)
    for name in ("s.py", "p.py"):
        Path(name).write_text("")
    assert resolve(Path("job.yaml")).student.script == str(job_file.with_name("s.py"))
    Path("s.py").unlink()
    with pytest.raises(ConfigError, match=rf"s.py \(looked from {job_file.parent}\)$"):
        resolve(Path("job.yaml"))


def test_an_absolute_path_is_itself(job_file: Path, tmp_path: Path) -> None:
    script = tmp_path / "elsewhere.py"
    for path in (script, Path("p.py")):
        path.write_text("")
    job_file.write_text(TEXT.replace("s.py", str(script)))
    assert resolve(job_file).student.script == str(script)


@pytest.mark.parametrize("key", ["model", "dataset"])
def test_a_module_that_is_in_both_folders_is_refused_with_both(job_file: Path, key: str) -> None:
    for name in ("s.py", "p.py", "here_only.py"):
        Path(name).write_text("")
    job_file.with_name("beside_only.py").write_text("")
    text = TEXT.replace("a:b", "here_only:f").replace("weights: w.pt", "dataset: 'beside_only.part:f'")
    job_file.write_text(text)
    resolve(job_file)
    job_file.write_text(
        text.replace("here_only:f" if key == "model" else "beside_only.part:f", "both.part:f")
    )
    here, beside = Path("both"), job_file.with_name("both.py")
    here.mkdir()
    beside.write_text("")
    resolve(job_file)  # a folder that is no package gives way
    (here / "__init__.py").write_text("")
    with pytest.raises(
        ConfigError, match=rf"teachers\[0\].{key}: both.part:f could be .*both/__init__.py or"
    ) as refused:
        resolve(job_file)
    assert str(beside) in str(refused.value)
    (here / "__init__.py").unlink()
    (here / "__init__.py").symlink_to(beside)
    resolve(job_file)


def test_where_weights_are_followed_nothing_has_to_be_there_yet(job_file: Path) -> None:
    job_file.write_text(TEXT.replace("w.pt", "follow:w"))
    for path in (Path("s.py"), job_file.with_name("p.py")):
        path.write_text("")
    job = resolve(job_file)
    assert job.teachers[0].weights == f"follow:{Path.cwd() / 'w'}"
    check_weights(job, job_file.parent)
    job_file.write_text(TEXT.replace("w.pt", "follow:s3://bucket/w"))
    assert resolve(job_file).teachers[0].weights == "follow:s3://bucket/w"
    job_file.write_text(TEXT.replace("w.pt", "'follow:{output}/w'"))  # which only who runs it knows
    assert resolve(job_file).teachers[0].weights == "follow:{output}/w"


def test_a_store_that_is_not_there_yet_is_made_beside_the_job_file(job_file: Path) -> None:
    for name in ("s.py", "p.py"):
        (Path.cwd() / name).write_text("")

    def store(path: str) -> str:
        job_file.write_text(f"{TEXT}store: {{path: {path!r}}}\n")
        found = resolve(job_file).store
        assert found is not None
        return found.path

    assert store("kept") == str(job_file.parent / "kept")
    (Path.cwd() / "here").mkdir()
    assert store("here") == str(Path.cwd() / "here")
    assert store("/kept") == "/kept" and store("s3://b/kept") == "s3://b/kept"
