"""What a job says of a teacher reaches its worker, and what cannot work is refused before it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

import edldist.cpus
import edldist.observe.logs
import edldist.teacher.worker
import edldist_launch.machine.cpu_shares
from edldist.config import TeacherConfig, dump_argument, load_job, parse_argument
from edldist.errors import ConfigError, EdlDistError
from edldist.teacher.worker import WorkerOptions
from edldist_launch.cli import cli
from edldist_launch.plan.commands import own_launcher, teacher_command

ALL = {
    "model": "a.b:c",
    "kwargs": {
        "path": "models/a b",
        "layers": 3,
        "names": ["x", "1e3", "null", "é"],
        "rate": 1e-4,
        "off": None,
    },
    "weights": "w.pt",
    "outputs": ["logits", "features"],
    "vocabulary": "models/tokenizer",
    "version": "7 b",
    "batch_size": "auto",
    "codec": "dense:fp16",
    "compile": True,
    "autocast": "bf16",
    "channels_last": True,
    "dataset": "d.e:f",
    "dataset_inputs": ["image", 2],
    "dataset_threads": 3,
    "allow_nonfinite": True,
}


@pytest.fixture
def started(monkeypatch):
    """The options of each worker that was to be run."""
    options: list[WorkerOptions] = []
    monkeypatch.setattr(edldist.teacher.worker, "run_worker", lambda given: options.append(given) or 0)
    return options


def invoke(*args: str, **variables: str | None):
    clean: dict[str, str | None] = {key: None for key in os.environ if key.startswith("EDLDIST_")}
    clean["OMP_NUM_THREADS"] = "1"  # which a command would choose for this very process
    return CliRunner().invoke(cli, args, env={**clean, **variables}, standalone_mode=False)


def test_every_key_of_a_teacher_reaches_its_worker(started):
    config = TeacherConfig(**ALL)
    for teacher in (config, TeacherConfig(model="a:b")):
        command = teacher_command(own_launcher(), teacher, "w-0", "tcp://127.0.0.1:1", Path.cwd())
        assert invoke(*command[2:]).exception is None
    full, plain = started
    told = {key: getattr(full, "model_args" if key == "kwargs" else key) for key in ALL}
    assert told == {**ALL, "dataset_inputs": "image,2", "outputs": "logits,features"}
    assert plain == WorkerOptions(coordinator="tcp://127.0.0.1:1", model="a:b", worker_id="w-0")


def test_what_a_worker_loads_may_lie_beside_the_job_file(started, tmp_path, monkeypatch):
    here, beside = tmp_path / "here", tmp_path / "jobs"
    for folder in (here, beside / "m", beside / "t"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    for name in ("w.pt", "v"):
        (beside / name).write_text("")
    (here / "k").write_text("")
    engine = {"model": "vllm:http://h:8000", "kwargs": {"tokenizer": "t", "api_key_file": "k", "retries": 3}}
    for teacher in (
        TeacherConfig(model="hf:m#Auto", weights="w.pt", vocabulary="v"),
        TeacherConfig(**engine),
        TeacherConfig(model="a:b", weights="nowhere.pt", kwargs={"path": "w.pt"}),
    ):
        command = teacher_command(own_launcher(), teacher, "w-0", "tcp://127.0.0.1:1", beside)
        assert invoke(*command[2:]).exception is None
    folder, asked, lacking = started
    assert (folder.model, folder.weights) == (f"hf:{beside / 'm'}#Auto", str(beside / "w.pt"))
    assert folder.vocabulary == str(beside / "v")
    assert asked.model_args == {"tokenizer": str(beside / "t"), "api_key_file": str(here / "k"), "retries": 3}
    assert (lacking.weights, lacking.model_args) == ("nowhere.pt", {"path": "w.pt"})
    (here / "w.pt").write_text("another")
    command = teacher_command(
        own_launcher(), TeacherConfig(model="a:b", weights="w.pt"), "w", "tcp://127.0.0.1:1", beside
    )
    refused = invoke(*command[2:]).exception
    assert isinstance(refused, ConfigError) and "--weights: w.pt could be" in str(refused)


def test_the_job_decides_and_no_variable_of_the_users(started):
    command = teacher_command(
        own_launcher(), TeacherConfig(model="a:b"), "w-0", "tcp://127.0.0.1:1", Path.cwd()
    )
    invoke(*command[2:], EDLDIST_COMPILE="1", EDLDIST_CHANNELS_LAST="1", EDLDIST_BATCH_SIZE="auto")
    assert (started[0].compile, started[0].channels_last, started[0].batch_size) == (False, False, 64)


def test_variables_set_the_options_of_a_worker_started_by_hand(started):
    invoke(
        *("teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "a:b", "--autocast", "fp16"),
        EDLDIST_COMPILE="true",
        EDLDIST_AUTOCAST="bf16",
        EDLDIST_BATCH_SIZE="auto",
        EDLDIST_DATASET="d:f",
        EDLDIST_MODEL_VERSION="7 b",
        EDLDIST_MODEL_ARG="layers=3 'path=a b'",
        EDLDIST_DATASET_INPUTS="1",
        EDLDIST_DATASET_THREADS="2",
    )
    (options,) = started
    assert (options.compile, options.autocast, options.batch_size) == (True, "fp16", "auto")
    assert options.version == "7 b"
    assert options.model_args == {"layers": 3, "path": "a b"}
    assert (options.dataset, options.dataset_inputs, options.dataset_threads) == ("d:f", "1", 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"batch_size": 0}, "batch_size=0: must be at least 1, or auto"),
        ({"batch_size": "many"}, "batch_size=many"),
        ({"dataset_threads": 0}, "dataset_threads=0: must be at least 1"),
        ({"dataset_inputs": "0"}, "dataset_inputs=0: there is no dataset"),
        ({"dataset": "a:b", "dataset_inputs": "a,,b"}, "dataset_inputs 'a,,b'"),
        ({"dataset": "a:b", "dataset_inputs": "a,a"}, "use different keys"),
        ({"outputs": "a,,b"}, "outputs 'a,,b': use different names"),
        ({"outputs": "a,a"}, "outputs 'a,a'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        WorkerOptions(coordinator="tcp://127.0.0.1:1", model="a:b", **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--dataset", "no_such_module:f"), "dataset no_such_module:f: no module named 'no_such_module'"),
        (("--dataset", "tests.models:NOT_CALLABLE"), "NOT_CALLABLE is a int, not a factory"),
        (("--dataset", "tests.models:identify"), "a function without __len__ and __getitem__"),
        (("--compile",), "compile True: tests.models:identify made a function, not an nn.Module"),
        (("--autocast", "bf16"), "autocast bf16: tests.models:identify made a function"),
        (("--channels-last",), "channels_last True: tests.models:identify made a function"),
        (("--model-arg", "size=3"), "identify cannot be called with size: got an unexpected keyword"),
        (("--weights", "no.pt"), "weights no.pt: no such file or folder"),
        (("--outputs", ""), "outputs '': use different names"),
        (("--dataset-inputs", "0"), "dataset_inputs=0: there is no dataset"),
    ],
)
def test_a_worker_that_cannot_work_says_so_before_it_joins(monkeypatch, options, says):
    monkeypatch.setattr(edldist.observe.logs, "install_logging", lambda *_: None)
    failure = invoke(
        *("teacher", "--coordinator", "tcp://127.0.0.1:9", "--model", "tests.models:identify"),
        *("--device", "cpu", *options),
    ).exception
    assert isinstance(failure, EdlDistError)
    assert says in str(failure)
    assert type(failure).__name__ in ("ConfigError", "ModelError")  # exit code 2


def test_a_job_file_takes_the_new_keys(tmp_path: Path):
    text = (
        "name: j\nstudent: {script: s.py}\nteachers: [{model: 'a:b', dataset: 'd:f', dataset_inputs: [0]}]\n"
    )
    (tmp_path / "job.yaml").write_text(text)
    teacher = load_job(tmp_path / "job.yaml", ["teachers.0.batch_size=auto"]).teachers[0]
    assert (teacher.batch_size, teacher.dataset, teacher.dataset_inputs) == ("auto", "d:f", [0])


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("size",), "size: write name=value, as in path=models/big"),
        (("=3",), "write name=value"),
        (("a b=3",), "write name=value"),
        (("a=[1",), "a=[1:1:3: not valid YAML"),
        (("a=!!set {b}",), "the value must be text, a number"),
        (("a=1", "a=2"), "a is given twice"),
    ],
)
def test_a_factorys_arguments_of_another_form_are_refused(started, args, says):
    options = [part for arg in args for part in ("--model-arg", arg)]
    failure = invoke("teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "a:b", *options).exception
    assert says in str(failure)
    assert started == []


@pytest.mark.parametrize(
    "value", [3, -1.5, True, None, "", "3", "null", "a: b", "[x", "é\n\"'", [1, ["2"]], {"a": {}}]
)
def test_every_value_of_an_argument_travels(value):
    assert parse_argument(dump_argument("name", value)) == ("name", value)


@pytest.mark.parametrize(
    ("commands", "cpus", "threads", "sharers"),
    [
        ([], 8, 4, 1),
        (
            [
                ["python", "/x/launch/__main__.py", "teacher"],
                ["/x/bin/python3", "/x/bin/edldist", "student", "s.py"],
            ],
            9,
            3,
            2,
        ),
        ([["edldist", "--log-level", "info", "teacher", "--model", "a:b"]] * 3, 2, 1, 4),
        (
            [
                ["edldist", "student", "s.py", "teacher"],
                ["vi", "edldist", "teacher"],
                ["edldist", "run", "j"],
                [],
            ],
            8,
            4,
            1,
        ),
    ],
)
def test_a_worker_by_hand_takes_its_part_of_the_cpus_and_says_so(
    started, monkeypatch, caplog, commands, cpus, threads, sharers
):
    chosen = []
    monkeypatch.setattr(edldist.cpus, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(edldist_launch.machine.cpu_shares, "usable_cpus", lambda: cpus)
    monkeypatch.setattr(edldist_launch.machine.cpu_shares, "commands_here", lambda: iter(commands))
    monkeypatch.setattr(edldist.observe.logs, "install_logging", lambda *_: None)
    monkeypatch.setattr(
        edldist.teacher.worker, "run_worker", lambda _: chosen.append(os.environ["OMP_NUM_THREADS"]) or 0
    )
    caplog.set_level("INFO")
    assert (
        invoke(
            "teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "a:b", OMP_NUM_THREADS=None
        ).exception
        is None
    )
    assert chosen == [str(threads)]
    assert f"CPU threads: {threads} of {cpus}, shared with {sharers} other" in caplog.text


def test_threads_that_were_chosen_stay(started, monkeypatch, caplog):
    monkeypatch.setattr(edldist.observe.logs, "install_logging", lambda *_: None)
    caplog.set_level("INFO")
    invoke("teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "a:b", OMP_NUM_THREADS="3")
    assert "CPU threads: 3 (OMP_NUM_THREADS)" in caplog.text
