"""The job scripts of a plan: one for each role. Pure; the same plan gives the same text.

A script runs one process of its role as a step, and stands between it and Slurm, which has several ways to
end a job and brings back only some of what it took:

===========================  ===============================  ==========================================
what happens                 who is told, and how             what the script does when the process left
===========================  ===============================  ==========================================
preempted, with a GraceTime  the process: SIGTERM             requeues its task: for Slurm it is done
a time limit is near         the script: SIGUSR1 (`warn_s`)   tells the process, then the same
`edldist scale`, `stop`      the script: SIGUSR2              tells the process, then ends
`scancel`                    all: SIGTERM                     ends: the job is cancelled
requeued by Slurm (grace     all: SIGTERM, or nobody          ends: Slurm brings the job back
over, host lost)
===========================  ===============================  ==========================================

Whatever leaves has as long as Slurm gives it: GraceTime, ``warn_s`` or KillWait. The process is a step
(``srun``) because, as clusters are set up, a preemption tells steps alone. In an array the requeued job is
named by its array and its task: by SLURM_JOB_ID Slurm may take the whole array.
"""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edldist.config import SlurmConfig, SlurmRoleConfig
from edldist.config.resources import memory_bytes
from edldist.errors import ConfigError
from edldist_launch.contract.job_keys import LINK
from edldist_launch.plan.commands import prepare_command
from edldist_launch.plan.plan import Kind, Plan, Role
from edldist_launch.process.exits import EXIT_STOPPED
from edldist_launch.slurm.layout import Layout

__all__ = ["ARRAY_KINDS", "LEFT_CODES", "Surroundings", "render_script"]

ARRAY_KINDS: tuple[Kind, ...] = ("teacher", "student")
"""Roles whose processes are tasks of arrays: they are placed, and leave, one by one."""
LEFT_CODES = (EXIT_STOPPED, 128 + signal.SIGUSR1)
"""Exit codes of processes that left because they were asked to, and have more to do: in order, or at their
very start, before they could answer to SIGUSR1."""
_PROCESS, _ATTEMPT = "@PROCESS@", "@ATTEMPT@"
_VARIABLES = {_PROCESS: '"$process"', _ATTEMPT: '"$attempt"'}
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./|&*()\[\]-]*")
_UNQUOTABLE = re.compile('[\x00-\x1f\x7f"\\\\]')

_TITLES: Mapping[Kind, str] = {
    "prepare": "The preparation",
    "coordinator": "The coordinator, and who keeps the number of the other processes,",
    "teacher": "Workers of teacher {name}, one a task,",
    "student": "Student nodes, one a task,",
}

_WISHES = """\
# What the process is asked for: to come back, or to stay away. It gets a SIGTERM; all of its step does.
wish='' step='' told=''
tell() {
    told=1
    scancel --signal=TERM "$task" || kill -USR1 "$step"
}
asked() {
    [ "$wish" = away ] || wish=$1
    [ -z "$step" ] || [ "$2" = told ] || tell
}
trap 'asked back now' USR1
trap 'asked away now' USR2
trap 'asked away told' TERM"""

_BODY = """
# Each attempt has a folder of its own for its log.
logs=$output/logs/$process
mkdir -p "$logs" || exit 1
attempt=0
until mkdir "$logs/$attempt" 2> /dev/null; do
    [ -d "$logs/$attempt" ] || exit 1
    attempt=$((attempt + 1))
done
log=$logs/$attempt/log
echo "$process, attempt $attempt: job $task on $(hostname), $(date)"
rm -f "$output/slurm/ended/$process"

# Steps are cancelled by number. An srun that was left on a host that was cut off does that when it is told to
# end there, so the step of the next attempt has another number.
restarts=${SLURM_RESTART_COUNT:-0}
[ $((restarts % 2)) = 0 ] || srun --ntasks=1 --input=none true

# The step's exit code comes through a pipe: after signals that arrive together, `wait` may have another one.
exec 3<> <(:)
code=@FIRST_LEFT@
if [ -z "$wish" ]; then
    (
        trap : TERM
        (
            echo "$BASHPID" >&3
            exec @STEP@ > "$log" 2>&1 3>&-
        )
        echo $? >&3
    ) &
    runner=$!
    until read -t 1 -r step <&3 || ! kill -0 "$runner" 2> /dev/null; do :; done
    [ -z "$wish" ] || [ -n "$told" ] || tell
    until read -t 0 <&3 || ! kill -0 "$runner" 2> /dev/null; do
        wait "$runner"
    done
    step=''
    if ! read -t 0 <&3 || ! read -r code <&3; then # its runner was killed
        wait "$runner"
        code=$?
    fi
fi
echo "$process, attempt $attempt: exit code $code${wish:+, asked to go}, $(date)"

# A host that was cut off goes on with what Slurm has given to another one since: that is left alone. And of a
# step that Slurm ended with its host srun says 0, as if it were done.
for _ in 1 2 3; do # what ends the step may end this, too
    known=$(scontrol show job -o "$task" |
        sed -n 's/.* Reason=NodeDown .*/lost/p; s/.* Restarts=\\([0-9]*\\) .*/\\1/p')
    [ -z "$known" ] || break
done
[ "${known:-$restarts}" = "$restarts" ] || exit "$code"

case $code in @LEFT@)
    if [ "$wish" != away ] && [ @REQUEUE@ = yes ] && scontrol requeue "$task"; then
        sleep @WAIT@ # until Slurm ends this script
        exit "$code"
    fi
    ;;
esac
echo "$code" > "$output/slurm/ended/.$process.new"
mv "$output/slurm/ended/.$process.new" "$output/slurm/ended/$process"
exit "$code"
"""

_ADVERTISE = """\
if [ -z "${EDLDIST_ADVERTISE-}" ]; then
    known=$(scontrol show node -o "$SLURMD_NODENAME")
    EDLDIST_ADVERTISE=$(sed -n 's/.* NodeAddr=\\([^ ]*\\) .*/\\1/p' <<< "$known")
fi
export EDLDIST_ADVERTISE"""
"""A coordinator is reached by the address by which Slurm reaches its host, unless ``setup`` says another."""
_LONG_AGO = 60
"""Seconds that a script waits for Slurm to end it, once its job was requeued."""


@dataclass(frozen=True)
class Surroundings:
    """What a script is told of where it was submitted.

    Attributes:
        cwd: the folder to work in.
        environment: variables of the person's that every process gets.
        python_path: folders from which a preparation imports, in front of PYTHONPATH.
    """

    cwd: str
    environment: Mapping[str, str]
    python_path: str = ""


def render_script(plan: Plan, role: Role, where: Surroundings) -> str:
    """The job script of a role.

    Raises:
        ConfigError: a path has a character that Slurm takes in no script, or the warning before a time limit
            comes too late to leave.
    """
    config = plan.job.slurm or SlurmConfig()
    if config.warn_s < plan.job.grace.kill_s:
        raise ConfigError(
            f"slurm.warn_s: processes are told {config.warn_s} s before a time limit, and may take "
            f"grace.kill_s={plan.job.grace.kill_s:g} s to leave: warn them earlier, or give them less time"
        )
    layout = Layout.of(plan)
    place = config.of(role.kind, role.name)
    if place.python is not None:
        plan = replace(plan, launcher=(place.python, "-m", "edldist_launch"))
    array = role.kind in ARRAY_KINDS
    lines = [
        "#!/bin/bash",
        f"# {_TITLES[role.kind].format(name=role.name)} of job {plan.name}. Written by edldist.",
        *(f"#SBATCH {option}" for option in _options(layout, role, config, place, where)),
        "",
        'unset "${!EDLDIST_@}"',
        "",
        _WISHES,
        "",
        *(place.setup or ()),
        f"output={shlex.quote(str(plan.output))}",
        f"process={role.name}-$SLURM_ARRAY_TASK_ID" if array else f"process={role.name}",
        "task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "task=$SLURM_JOB_ID",
        *(f"export {name}={shlex.quote(value)}" for name, value in _environment(plan, role, where).items()),
    ]
    if role.kind == "coordinator":
        lines.append(_ADVERTISE)
    if role.kind == "prepare" and where.python_path:
        lines.append(f"export PYTHONPATH={shlex.quote(where.python_path)}${{PYTHONPATH:+:$PYTHONPATH}}")
    left = " | ".join(map(str, LEFT_CODES))
    body = _BODY.replace("@FIRST_LEFT@", str(LEFT_CODES[0])).replace("@LEFT@", left)
    body = body.replace("@REQUEUE@", "yes" if config.requeue else "no").replace("@WAIT@", str(_LONG_AGO))
    return "\n".join(lines) + "\n" + body.replace("@STEP@", _step(role, _command(plan, role, layout, place)))


def _options(
    layout: Layout, role: Role, config: SlurmConfig, place: SlurmRoleConfig, where: Surroundings
) -> Iterator[str]:
    """Options of sbatch; those that differ from one submission to the next are given with it."""
    needs = role.resources
    yield f"--job-name={layout.queue_name(role.kind, role.name)}"
    yield from ("--nodes=1", "--ntasks=1")
    if needs.cpus is not None:
        yield f"--cpus-per-task={needs.cpus}"
    if needs.memory is not None:
        yield f"--mem={memory_bytes(needs.memory) >> 20}M"
    if gres := ",".join(_gres(role, place)):
        yield f"--gres={gres}"
    for name in ("partition", "account", "qos", "reservation", "constraint", "time_limit", "nice"):
        value = getattr(place, name)
        if value is not None:
            yield f"--{'time' if name == 'time_limit' else name}={_quoted(str(value), name)}"
    yield f"--signal=B:USR1@{config.warn_s}"
    yield "--requeue" if config.requeue else "--no-requeue"
    yield from ("--open-mode=append", "--kill-on-invalid-dep=yes")
    if role.kind == "coordinator":
        yield "--dependency=singleton"
    yield f"--chdir={_quoted(where.cwd, 'the current folder')}"
    said = "%x-%A_%a.log" if role.kind in ARRAY_KINDS else "%x-%j.log"
    folder = str(layout.slurm_logs).replace("%", "%%")
    yield f"--output={_quoted(f'{folder}/{said}', '--output')}"
    for option in place.options or ():
        name, equals, value = option.partition("=")
        yield f"{name}={_quoted(value, name)}" if equals else name


def _gres(role: Role, place: SlurmRoleConfig) -> Iterator[str]:
    needs = role.resources
    if needs.gpus:
        yield ":".join(filter(None, ("gpu", needs.gpu_type, str(needs.gpus))))
    if place.gres is not None:
        yield place.gres


def _quoted(value: str, what: str) -> str:
    """A value on a line for Slurm."""
    if _UNQUOTABLE.search(value):
        raise ConfigError(
            f"{what}: {value!r} has a quote, a backslash or a control character, which Slurm takes in no job "
            "script: use another name"
        )
    return value if _PLAIN.fullmatch(value) else f'"{value}"'


def _environment(plan: Plan, role: Role, where: Surroundings) -> dict[str, str]:
    """Variables of a role's processes."""
    own: Mapping[str, str] = role.environment
    given = where.environment
    if role.kind == "student":
        own = plan.student_environment(Layout.of(plan).coordinator)
    elif role.kind == "prepare":
        own = {"EDLDIST_OUTPUT": str(plan.output)}
        given = {name: value for name, value in given.items() if name not in LINK}  # it talks to nobody
    return {**given, **own}


def _command(plan: Plan, role: Role, layout: Layout, place: SlurmRoleConfig) -> Sequence[str]:
    """What one process of a role runs, with ``_PROCESS`` for what it is called, and ``_ATTEMPT``."""
    if role.kind == "prepare":
        assert plan.job.prepare is not None
        return prepare_command(place.python or plan.launcher[0], plan.job.prepare)
    if role.kind == "coordinator":
        return (*plan.launcher, "placer", "--output", str(plan.output))
    if role.kind == "teacher":
        return plan.teacher_command(plan.teacher(role.name), _PROCESS, layout.coordinator, attempt=_ATTEMPT)
    return plan.student_command(layout.coordinator)


def _step(role: Role, command: Sequence[str]) -> str:
    """The line that runs a command as a step of the job, with all that the job has."""
    cpus = () if role.resources.cpus is None else (f"--cpus-per-task={role.resources.cpus}",)
    words = ("srun", "--ntasks=1", *cpus, "--input=none", *command)
    return " ".join(_VARIABLES.get(word) or shlex.quote(word) for word in words)
