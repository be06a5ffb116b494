"""How much commands say, in what form, and what shells complete."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from edldist_launch.cli import cli
from tests.unit.command_line import edldist, invoke


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None]]:
    """The level and the form that a command began with, by what it found in its environment."""
    import edldist_launch.view.end_watch as end_watch

    seen: list[tuple[str | None, str | None]] = []

    def fake(coordinator: str, every_s: float, given_up: Path | None) -> str:
        seen.append((os.environ.get("EDLDIST_LOG_LEVEL"), os.environ.get("EDLDIST_LOG_JSON")))
        return "completed"

    monkeypatch.setenv("EDLDIST_LOG_JSON", "")  # what a command sets there ends with the test
    monkeypatch.setattr(end_watch, "await_end", fake)
    monkeypatch.setattr("edldist_launch.cli.watch.wait.begin", lambda prefix: None)
    return seen


@pytest.mark.parametrize(
    ("before", "behind", "level"),
    [
        ((), (), "info"),
        (("-v",), (), "debug"),
        ((), ("-v",), "debug"),
        (("--quiet",), (), "warning"),
        ((), ("--quiet",), "warning"),
        (("-q",), ("-v",), "debug"),
        (("--log-level", "error"), (), "error"),
        (("--log-level", "error"), ("-v",), "debug"),
        (("--log-level", "error", "-q"), (), "warning"),
    ],
)
def test_a_level_may_be_chosen_before_and_behind_the_command(
    before: tuple[str, ...], behind: tuple[str, ...], level: str, said: list[tuple[str | None, str | None]]
) -> None:
    result = invoke(*before, "wait", "--coordinator", "tcp://h:1", *behind)
    assert result.exception is None and said[0][0] == level and not said[0][1]


def test_json_may_be_chosen_before_and_behind_the_command_and_by_its_variable(
    said: list[tuple[str | None, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = ("wait", "--coordinator", "tcp://h:1")
    for args, variables in (
        (("--log-json", *wait), {}),
        ((*wait, "--log-json"), {}),
        (wait, {"EDLDIST_LOG_JSON": "true"}),
    ):
        assert invoke(*args, **variables).exception is None
    assert [form for _, form in said] == ["1", "1", "1"]


def test_more_and_less_at_once_is_refused() -> None:
    for args in (("-v", "-q", "schema"), ("schema", "-q", "-v")):
        failure = invoke(*args).exception
        assert isinstance(failure, click.UsageError) and "give one of them" in failure.format_message()


def test_every_command_has_them() -> None:
    def missing(group: click.Group, path: str = "") -> list[str]:
        found = []
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                found += missing(command, f"{name} ")
            elif not {"-v", "-q", "--log-json"} <= {
                each for option in command.params for each in option.opts
            }:
                found.append(path + name)
        return found

    assert missing(cli) == ["bench"], "whose arguments are the benchmarks' own"


@pytest.mark.parametrize(
    "args",
    [("--log-json", "run", "absent.yaml"), ("run", "--log-json", "absent.yaml"), ("--log-json", "stats")],
)
def test_the_last_words_of_a_command_are_json_too(args: tuple[str, ...], tmp_path: Path) -> None:
    done = edldist(*args, cwd=tmp_path)
    assert done.returncode == 2
    (first, *_) = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert first["level"] == "error" and ("absent.yaml" in first["message"] or "stats" in first["message"])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    result = invoke("completion", shell)
    assert result.exception is None
    assert f"_EDLDIST_COMPLETE={shell}_complete" in result.output and "edldist" in result.output


def test_a_shell_that_is_not_known_is_refused_with_those_that_are() -> None:
    failure = invoke("completion", "csh").exception
    assert isinstance(failure, click.BadParameter) and "'bash', 'zsh', 'fish'" in failure.format_message()


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    script = invoke("completion", "bash").output
    from edldist_launch.plan.commands import own_command

    own = " ".join(own_command())
    (tmp_path / "edldist").write_text(f'#!/bin/sh\nexec {own} "$@"\n')
    (tmp_path / "edldist").chmod(0o755)
    asks = (
        f'{script}\nfor line in "edldist rep" "edldist top --out"; do COMPREPLY=(); COMP_WORDS=($line); '
        'COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _edldist_completion edldist; echo "${COMPREPLY[@]}"; done'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "-c", asks], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == ("report\n--output\n", "")
