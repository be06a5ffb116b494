"""The command line: options, variables, exit codes, and words for what is wrong."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edldist.errors import ConfigError
from edldist_launch.cli import cli
from tests.unit.command_line import edldist, invoke

TEACHER = ("teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "a:b")
COMMANDS = (
    "run",
    "coordinator",
    "teacher",
    "student",
    "status",
    "schema",
    "scale",
    "logs",
    "stop",
    "tune",
    "plan",
    "top",
)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_answers_at_once_and_imports_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom edldist_launch.cli import cli\n"
        f"cli.main([*{list(command)!r}, '--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'yaml', 'rich', 'zmq', 'msgspec'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    taken = []
    for _ in range(3):
        begun = _children_cpu_s()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        taken.append(_children_cpu_s() - begun)  # not the wall clock's: this machine may be busy
        assert done.returncode == 0, done.stderr
        if taken[-1] < 0.3:
            break
    assert "Usage: " in done.stdout
    assert min(taken) < 0.3


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_commands_are_those_of_the_design() -> None:
    assert set(COMMANDS) <= set(cli.commands)


def test_every_option_has_a_variable() -> None:
    for command in (cli, *cli.commands.values()):
        for option in command.params:
            if not isinstance(option, click.Option) or "--version" in option.opts:
                continue
            long = max(option.opts, key=len).removeprefix("--").replace("-", "_").upper()
            assert option.envvar == f"EDLDIST_{long}", (command.name, option.name)


def test_every_number_has_a_most_and_is_a_number() -> None:
    seen = 0
    for command in (cli, *cli.commands.values()):
        for option in command.params:
            if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
                seen += 1
                for value in ("1000000001", "1" + "0" * 30, "inf", "nan"):
                    with pytest.raises(click.BadParameter, match="range|number"):
                        option.type.convert(value, option, None)
    assert seen >= 10


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run",), "Missing argument 'JOB'"),
        (("run", "job.yaml", "--outptu", "x"), "No such option"),
        (("run", "job.yaml", "--output", __file__), "is a file"),
        (("run", "job.yaml", "--fresh", "--extend"), "--fresh begins anew and --extend goes on"),
        (("tune", "job.yaml"), "Missing option '--space'"),
        (("tune", "job.yaml", "--space", "s.yaml", "--trials", "0"), "0 is not in the range 1<=x<="),
        (("tune", "job.yaml", "--space", "s.yaml", "--output", __file__), "is a file"),
        (("status", "--output", "nowhere"), "'nowhere' does not exist"),
        (("status", "--output", ".", "--coordinator", "tcp://h:1"), "both say which job"),
        (("trace", ".", "--coordinator", "tcp://h:1"), "--coordinator and DIR both say which job"),
        (("doctor", "--job", "--output", ".", "--coordinator", "tcp://h:1"), "both say which job"),
        (("top", "--output", "nowhere"), "'nowhere' does not exist"),
        (("top", "--output", ".", "--coordinator", "tcp://h:1"), "both say which job"),
        (("top", "--coordinator", "nowhere"), "'nowhere' is not an address"),
        (("report",), "Missing argument 'DIR...'"),
        (("report", "nowhere"), "'nowhere' does not exist"),
        (("report", ".", "--to", "."), "is a directory"),
        (("scale",), "Missing argument 'NAME=N...'"),
        (("scale", "teacher"), "'teacher' is not NAME=N or NAME=auto"),
        (("scale", "teacher=-1"), "'teacher=-1' is not NAME=N"),
        (("scale", "teacher=1.5"), "'teacher=1.5' is not NAME=N"),
        (("scale", "teacher=٣"), "'teacher=٣' is not NAME=N"),
        (("scale", "=3"), "'=3' is not NAME=N"),
        (("scale", "a/b=3"), "'a/b' is not up to 100 letters"),
        (("scale", "teacher=2", "teacher=3"), "teacher is given twice"),
        (("scale", "teacher=" + "9" * 5000), "at most 10000 are possible"),
        (("scale", "teacher=2", "--output", "nowhere"), "'nowhere' does not exist"),
        (("scale", "a=1", "--output", ".", "--coordinator", "tcp://h:1"), "both say which job"),
        (("stop", "--grace-s", "-1"), "0<=x<=604800"),
        (("logs", "--output", "nowhere"), "'nowhere' does not exist"),
        (("coordinator", "--output", __file__), "is a file"),
        (("coordinator", "--bind", "localhost"), "tcp://127.0.0.1:7070"),
        (("coordinator", "--bind", "udp://a:1"), "'udp://a:1' is not an address"),
        (("coordinator", "--http", "7071"), "'7071' is not HOST:PORT"),
        (("coordinator", "--heartbeat-interval-s", "0"), "0<x<=3600"),
        (("coordinator", "--heartbeat-ttl-s", "soon"), "'soon' is not a valid float"),
        (("coordinator", "--max-students-per-worker", "0"), "1<=x<=1000000000"),
        (("coordinator", "--http-token-file", "/no/such"), "does not exist"),
        (("coordinator", "--scale", "teacher"), "'teacher' is not NAME=N or NAME=MIN:MAX"),
        (("coordinator", "--scale", "=2"), "'=2' is not NAME=N or NAME=MIN:MAX"),
        (("coordinator", "--scale", "a=8:1"), "a='8:1': the bounds must satisfy 0 <= MIN <= MAX"),
        (("coordinator", "--scale", "a=some"), "a='some': write a number of workers"),
        (("coordinator", "--scale", "a=1", "--scale", "a=2"), "a is given twice"),
        (("coordinator", "--scale", "a b=1"), "'a b' is not up to 100 letters"),
        (("coordinator", "--scale-policy", "best"), "'demand', 'watermark'"),
        (("teacher", "--model", "a:b"), "Missing option '--coordinator'"),
        (("teacher", "--coordinator", "tcp://h:1"), "Missing option '--model'"),
        (("teacher", "--coordinator", "h:1", "--model", "a:b"), "'h:1' is not an address"),
        (
            ("student", "--coordinator", "file:c.json", "s.py"),
            "the whole path of a file with one (file:/",
        ),
        (("coordinator", "--advertise", "*"), "'*' is not a host"),
        (("teacher", "--coordinator", "tcp://h:1", "--model", "a.b"), "'a.b' is not module:factory"),
        (("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--name", "a b"), "'a b' is not up to"),
        (("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--id", "a/b"), "'a/b' is not up to"),
        (
            ("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--batch-size", "0"),
            "1<=x<=1000000000",
        ),
        (("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--device", "GPU"), "'GPU' is not auto"),
        (("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--drain-s", "-1"), "0<=x<=604800"),
        (
            ("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--connect-timeout-s", "0"),
            "0<x<=604800",
        ),
        (
            (*TEACHER, "--batch-size", "automatic"),
            "'automatic' is not in the range 1<=x<=1000000000, nor",
        ),
        ((*TEACHER, "--autocast", "fp32"), "'fp32' is not one of"),
        ((*TEACHER, "--model-version", "1\n2"), "version '1\\n2': use up to 100 printable characters"),
        ((*TEACHER, "--model-version", "x" * 101), "use up to 100 printable characters"),
        ((*TEACHER, "--compile=1"), "does not take a value"),
        ((*TEACHER, "--channels-last=1"), "does not take a value"),
        ((*TEACHER, "--dataset", "a.b"), "'a.b' is not module:factory"),
        ((*TEACHER, "--dataset-threads", "0"), "1<=x<=1024"),
        (("student", "--coordinator", "tcp://h:1"), "Missing argument 'SCRIPT'"),
        (("student", "--coordinatr", "tcp://h:1", "s.py"), "No such option"),
        (("student", "--coordinator", "tcp://h:1", "--nproc-per-node", "0", "s.py"), "1<=x<=1024"),
        (
            ("student", "--coordinator", "tcp://h:1", "--nproc-per-node", "all", "s.py"),
            "nor gpu or auto",
        ),
        (("student", "--coordinator", "tcp://h:1", "--max-restarts", "-1", "s.py"), "0<=x<=1000000000"),
        (("status", "--coordinator", "nowhere"), "'nowhere' is not an address"),
        (("stats",), "No such command"),
        (("--log-level", "loud", "status"), "'loud' is not one of"),
    ],
)
def test_a_wrong_option_is_refused_with_its_value(args: tuple[str, ...], says: str) -> None:
    failure = invoke(*args).exception
    assert isinstance(failure, click.ClickException)
    assert failure.exit_code == 2
    assert says in failure.format_message()


def test_a_wrong_codec_names_those_there_are() -> None:
    failure = invoke("teacher", "--coordinator", "tcp://h:1", "--model", "a:b", "--codec", "zip").exception
    assert isinstance(failure, ConfigError)
    assert "--codec zip" in str(failure)
    assert "dense[:fp32|fp16|bf16]" in str(failure)


def test_a_variable_sets_an_option_and_the_option_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    import edldist_launch.node.student

    seen: list[tuple[Any, ...]] = []

    def fake(coordinator: str, script: str, args: tuple[str, ...], **settings: Any) -> int:
        seen.append((coordinator, script, args, settings["nproc_per_node"]))
        return 7

    monkeypatch.setattr(edldist_launch.node.student, "run_student", fake)
    variables = {"EDLDIST_COORDINATOR": "tcp://env:1", "EDLDIST_NPROC_PER_NODE": "3"}
    result = invoke("student", "s.py", "--nnodes", "-x", "--", "-h", **variables)
    assert result.return_value == 7
    invoke("student", "--coordinator", "tcp://option:2", "s.py", **variables)
    assert seen == [
        ("tcp://env:1", "s.py", ("--nnodes", "-x", "--", "-h"), 3),
        ("tcp://option:2", "s.py", (), 3),
    ]


def test_a_wrong_variable_is_refused_as_the_option_is() -> None:
    failure = invoke("coordinator", EDLDIST_HTTP="x").exception
    assert isinstance(failure, click.BadParameter) and "EDLDIST_HTTP" in failure.format_message()
    failure = invoke(*TEACHER, EDLDIST_BATCH_SIZE="zero").exception
    assert isinstance(failure, click.BadParameter)
    says = failure.format_message()
    assert (
        "'zero' is not in the range 1<=x<=1000000000, nor auto. It is the value of EDLDIST_BATCH_SIZE."
        in says
    )
    assert "EDLDIST" not in invoke(*TEACHER, "--batch-size", "zero").exception.format_message()


def test_overrides_come_from_the_variable_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import edldist_launch.job.run

    seen: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        edldist_launch.job.run,
        "run_job",
        lambda job, overrides, *rest: seen.append(overrides) or 0,
    )
    invoke("run", "job.yaml", EDLDIST_SET="a=1 b=2")
    invoke("run", "job.yaml", "--set", "c=3 d", EDLDIST_SET="a=1 b=2")
    invoke("run", "job.yaml", EDLDIST_SET="'student.args=[--lr, 1]' b=\"c d\"")
    assert seen == [("a=1", "b=2"), ("c=3 d",), ("student.args=[--lr, 1]", "b=c d")]
    failure = invoke("run", "job.yaml", EDLDIST_SET="a='1").exception
    assert isinstance(failure, click.BadParameter) and "No closing quotation" in failure.format_message()


def test_workers_that_inherit_a_name_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import edldist.teacher.worker

    names: list[str | None] = []
    monkeypatch.setattr(
        edldist.teacher.worker, "run_worker", lambda options: names.append(options.worker_id) or 0
    )
    for _ in range(2):
        assert invoke(*TEACHER, EDLDIST_ID="pod-7").exception is None
    invoke(*TEACHER, "--id", "given", EDLDIST_ID="pod-7")
    invoke(*TEACHER)
    first, second, *others = names
    assert first != second and all(re.fullmatch(r"pod-7-[0-9a-f]{8}", name or "") for name in (first, second))
    assert others == ["given", None]
    invoke(*TEACHER, EDLDIST_ID=100 * "a")
    longest = names.pop()
    assert longest is not None and len(longest) <= 100 and longest.startswith(90 * "a"), "one that is taken"
    failure = invoke(*TEACHER, EDLDIST_ID="a/b").exception
    assert isinstance(failure, click.BadParameter)


def test_configuration_errors_end_with_two_and_one_message(tmp_path: Path) -> None:
    done = edldist("run", "absent.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no such job file: absent.yaml\n"


def test_usage_errors_end_with_two() -> None:
    assert edldist("teacher").returncode == 2


def test_a_job_whose_script_is_missing_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "name: j\nteachers: [{model: 'a:b'}]\nstudent: {script: s.py}\nprepare: {script: p.py}\n"
    )
    done = edldist("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "student.script: no such file: s.py" in done.stderr
    (tmp_path / "s.py").write_text("")
    assert "prepare.script: no such file: p.py" in edldist("run", "job.yaml", cwd=tmp_path).stderr
    assert not (tmp_path / "out").exists()


def test_an_unreachable_coordinator_ends_status_with_one() -> None:
    done = edldist("status", "--coordinator", "tcp://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no coordinator answered at tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("coordinator", "--bind", "tcp://nohost.invalid:7070", "--http", "127.0.0.1:0"), 2),
        (("coordinator", "--bind", "tcp://127.0.0.1:0", "--http", "nohost.invalid:7071"), 2),
        (("status", "--coordinator", "tcp://nohost.invalid:7070"), 1),
        (("student", "--nnodes", "2", "--coordinator", "tcp://nohost.invalid:7070", __file__), 2),
        (
            ("teacher", "--coordinator", "tcp://nohost.invalid:1", "--model", "torch.nn:Identity")
            + ("--connect-timeout-s", "0.1"),
            1,
        ),
    ],
)
def test_a_name_that_does_not_resolve_is_named_wherever_it_is_given(args: tuple[str, ...], code: int) -> None:
    done = edldist(*args, EDLDIST_INSECURE="1")
    assert done.returncode == code
    assert "the name 'nohost.invalid' does not resolve (" in done.stderr
    assert "device" not in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ("coordinator", "--bind", "tcp://0.0.0.0:0", "--http", "127.0.0.1:0"),
        ("teacher", "--coordinator", "tcp://192.0.2.1:7070", "--model", "no.such:model"),
        ("student", "--coordinator", "tcp://192.0.2.1:7070", __file__),
        ("status", "--coordinator", "tcp://192.0.2.1:7070"),
        ("scale", "teacher=2", "--coordinator", "tcp://192.0.2.1:7070"),
        ("wait", "--coordinator", "tcp://192.0.2.1:7070"),
    ],
)
def test_nothing_goes_beyond_this_machine_without_keys_unless_somebody_says_so(args: tuple[str, ...]) -> None:
    failure = invoke(*args).exception
    assert isinstance(failure, ConfigError)
    for words in ("without keys", args[2] if args[0] != "scale" else args[3], "edldist keygen", "--insecure"):
        assert words in str(failure)


@pytest.mark.parametrize("args", [("--insecure",), ()])
def test_a_command_that_may_goes_without_and_says_so(
    args: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edldist.keys.open_link._said", set())
    monkeypatch.setenv("EDLDIST_INSECURE", "")  # which the command sets for what it starts
    variables = {} if args else {"EDLDIST_INSECURE": "1"}
    failure = invoke("teacher", *TEACHER[1:2], "tcp://192.0.2.1:1", "--model", "no:such", *args, **variables)
    assert "without keys" not in str(failure.exception)
    assert "nothing that goes beyond this machine is sealed" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("command", ["teacher", "student"])
def test_modules_are_found_in_a_folder_that_is_named(tmp_path: Path, command: str) -> None:
    here, jobs = tmp_path / "here", tmp_path / "jobs"
    for folder in (here, jobs):
        folder.mkdir()
    (jobs / "beside.py").write_text("def teacher():\n    return lambda x: x\n")
    (here / "script.py").write_text("import beside\nprint('from', beside.__file__)\n")
    common = ("--coordinator", "tcp://127.0.0.1:9", "--connect-timeout-s", "0.1")
    rest = ("--model", "beside:teacher") if command == "teacher" else ("script.py",)
    alone = edldist(command, *common, *rest, cwd=here)
    assert "beside" in alone.stderr and alone.returncode != 0
    if command == "teacher":
        assert re.search(f"no module named 'beside' in .*{here}.*--import-from", alone.stderr)
    found = edldist(command, "--import-from", "../jobs", *common, *rest, cwd=here)
    if command == "teacher":
        assert "no coordinator answered" in found.stderr, "the model was made"
    else:
        assert found.returncode == 0 and str(jobs / "beside.py") in found.stdout


def test_a_missing_student_script_ends_with_two(tmp_path: Path) -> None:
    done = edldist("student", "--coordinator", "tcp://127.0.0.1:9", "none.py", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such script: none.py" in done.stderr


def test_a_module_named_launch_in_the_users_folder_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "launch.py").write_text("raise SystemExit('the wrong launch')")
    done = edldist("--version", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_schema_is_json_on_standard_output() -> None:
    done = edldist("schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["title"] == "edldist job file"


def test_the_group_may_be_imported_anew() -> None:
    """As by whoever clears modules between tests: its commands stay what they are."""
    import importlib

    from edldist_launch.cli import group

    importlib.reload(group)
    for command in group.cli.commands.values():
        names = [parameter.name for parameter in command.params]
        assert len(names) == len(set(names)), command.name


@pytest.mark.parametrize("args", [("trace", "."), ("doctor", "--job", "--output", ".")])
def test_a_folder_that_is_named_wins_over_a_coordinator_that_a_variable_names(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def coordinator_of(folder: Path, engine: object, wait: bool) -> None:
        asked.append(folder)

    monkeypatch.setattr("edldist_launch.view.whereabouts.coordinator_of", coordinator_of)
    monkeypatch.chdir(tmp_path)
    done = CliRunner(env={"EDLDIST_COORDINATOR": "tcp://127.0.0.1:9"}).invoke(cli, args)
    assert asked == [Path()], done.output
    assert isinstance(done.exception, ConfigError) and "no coordinator yet, or has ended" in str(
        done.exception
    )


@pytest.mark.parametrize(("said", "quiet"), [(("-q",), True), ((), False)])
def test_a_quiet_tuning_shows_no_progress(
    said: tuple[str, ...], quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("edldist_launch.cli.tune.begin", lambda prefix: None)
    monkeypatch.setattr("edldist_launch.tune.tuning.run_tuning", lambda *args: asked.append(args[-1]))
    done = CliRunner().invoke(cli, ["tune", "job.yaml", "--space", "space.yaml", *said])
    assert done.exit_code == 0 and asked == [quiet]
