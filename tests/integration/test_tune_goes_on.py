"""``edldist tune`` as a process: what goes wrong, and how it goes on."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from edldist.errors import ConfigError
from edldist_launch.job.found import find_job
from edldist_launch.view.logs import logs_of
from tests.integration.launching import running, until
from tests.integration.tunings import (
    JOB,
    SPACE,
    STUDENT,
    Start,
    folder,
    pids,
    start,
    starts,
    states,
    trial_events,
    tune_json,
)

__all__ = ["folder", "start"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_one_that_ended_before_its_tuning_could_write_so_is_not_run_again(start: Start, folder: Path) -> None:
    output, _ = (tuning := start(trials=3)).communicate()
    assert tuning.returncode == 0, output
    document = tune_json(folder)
    document["trials"][2] |= {"state": "running", "metrics": {}, "steps": 0}
    (folder / "out" / "tune.json").write_text(json.dumps(document))
    output, _ = (again := start(trials=3)).communicate()
    assert again.returncode == 0, output
    assert states(folder) == ["done"] * 4
    assert starts(folder) == Counter(range(4))


def test_a_finished_tuning_starts_nothing_and_goes_on_with_more_trials(start: Start, folder: Path) -> None:
    for trials, ran in ((3, 4), (3, 4), (4, 6)):
        output, _ = (tuning := start(trials=trials)).communicate()
        assert tuning.returncode == 0, output
        assert starts(folder) == Counter(range(ran))
    assert [trial["control"] for trial in tune_json(folder)["trials"]] == [
        *(True, False, False, False),
        *(True, False),
    ]


def test_a_tuning_that_is_asked_to_stop_lets_trials_save_and_goes_on_later(
    start: Start, folder: Path
) -> None:
    (folder / "hold-1").touch()
    tuning = start()
    until(lambda: any(event["event"] == "report" and event["step"] == 5 for event in trial_events(folder, 1)))
    tuning.send_signal(signal.SIGTERM)
    output, _ = tuning.communicate()
    assert tuning.returncode == 130, output
    assert "the same command goes on" in output
    assert tune_json(folder)["status"] == "interrupted"
    assert states(folder)[1] == "running"
    assert not any(running(pid) for pid in pids(folder))
    (folder / "hold-1").unlink()
    output, _ = (again := start()).communicate()
    assert again.returncode == 0, output
    assert starts(folder)[1] == 2 and set(states(folder)) == {"done"}


def test_commands_find_a_tuning_as_they_find_a_job(start: Start, folder: Path) -> None:
    (folder / "job.yaml").write_text(JOB.replace("replicas: 1", "replicas: {min: 1, max: 2}"))
    for number in (1, 2):
        (folder / f"hold-{number}").touch()
    tuning = start(student=f"print('here I am', flush=True)\n{STUDENT}")
    until(lambda: states(folder) == ["done", "running", "running", "planned"] and starts(folder)[2] == 1)
    job = find_job(folder / "out")
    assert job.goes_on and job.submission.job == "toy"
    until(lambda: len(job.backend.state().role("student").processes) == 2)
    students = [process.id for process in job.backend.state().role("student").processes]
    assert students == ["trial-1/student-0", "trial-2/student-0"]
    until(lambda: "trial-2/student-0: here I am" in job.backend.logs("student"))
    assert [line for line in logs_of(job.backend, ["trial-1"], False) if line.endswith("here I am")] == [
        "trial-1/student-0: here I am"
    ]
    with pytest.raises(ConfigError, match="student cannot be scaled: each trial of a tuning"):
        job.backend.scale({"student": 1})
    job.backend.scale({"teacher": 2})
    until(lambda: len(job.backend.state().role("teacher").processes) == 2)
    job.backend.stop()
    output, _ = tuning.communicate()
    assert tuning.returncode == 130, output
    ended = job.backend.state()
    assert ended.phase == "failed" and ended.reason.startswith("interrupted: the same command goes on")
    for number in (1, 2):
        (folder / f"hold-{number}").unlink()
    output, _ = (again := start()).communicate()
    assert again.returncode == 0, output
    ended = find_job(folder / "out").backend.state()
    assert ended.phase == "succeeded"
    assert re.match(r"6 candidates done, 0 stopped early, 0 failed, 2 controls\. Trial \d is", ended.reason)


def test_a_candidate_that_fails_is_counted_and_the_others_go_on(start: Start, folder: Path) -> None:
    (folder / "space.yaml").write_text(SPACE.replace("[good, also]", "[good, bad]"))
    output, _ = (tuning := start()).communicate()
    assert tuning.returncode == 0, output
    trials = tune_json(folder)["trials"]
    failed = [trial for trial in trials if trial["values"]["--mode"] == "bad"]
    assert failed and {trial["state"] for trial in failed} == {"failed"}
    assert "no such mode" in failed[0]["reason"]
    assert {trial["state"] for trial in trials if trial not in failed} == {"done"}


@pytest.mark.parametrize(
    ("student", "code", "says"),
    [
        (STUDENT.replace("accuracy=", "accurcy="), 2, "the control never reported the metric 'accuracy'"),
        (
            STUDENT.replace("reach * step / 10", "math.nan"),
            2,
            "the control's accuracy is nan, which is no fin",
        ),
        ("raise ValueError('my own trouble')", 1, "the control of window 0 failed: the student failed (exit"),
    ],
)
def test_a_control_that_says_nothing_ends_the_tuning_with_the_reason(
    start: Start, folder: Path, student: str, code: int, says: str
) -> None:
    output, _ = (tuning := start(student=student)).communicate()
    assert tuning.returncode == code, output
    assert f"error: {says}" in output
    assert says in tune_json(folder)["reason"]
    assert not any(running(pid) for pid in pids(folder))


@pytest.mark.parametrize("wrong", ["accurcy=0 * ", "accuracy=math.nan * ", "accuracy=-1 * "])
def test_a_tuning_goes_on_once_the_script_of_its_control_is_mended(
    start: Start, folder: Path, wrong: str
) -> None:
    output, _ = (tuning := start(trials=1, student=STUDENT.replace("accuracy=", wrong))).communicate()
    assert tuning.returncode == 2, output
    output, _ = (tuning := start(trials=1)).communicate()
    assert tuning.returncode == 0, output
    assert states(folder)[0] == "done" and starts(folder)[0] == 2
    assert (folder / "out" / "trials" / "0000" / "earlier-1" / "result.json").exists()


def test_a_folder_of_another_space_is_refused_and_left_as_it_is(start: Start, folder: Path) -> None:
    start(trials=1).communicate()
    before = (folder / "out" / "tune.json").read_bytes()
    (folder / "space.yaml").write_text(SPACE.replace("high: 0.1", "high: 0.2"))
    output, _ = (other := start(trials=1)).communicate()
    assert other.returncode == 2
    assert f"digest {json.loads(before)['digest']}, this one's is" in output
    assert '"high": 0.1' in output and '"high": 0.2' in output
    assert (folder / "out" / "tune.json").read_bytes() == before


def test_a_trial_ends_at_the_steps_that_the_space_gives_it(start: Start, folder: Path) -> None:
    for number in range(3):
        (folder / f"hold-{number}").touch()
    (folder / "space.yaml").write_text(f"{SPACE}steps: 4\n")
    output, _ = (tuning := start(trials=2)).communicate()
    assert tuning.returncode == 0, output
    trials = tune_json(folder)["trials"]
    assert [trial["state"] for trial in trials] == ["done"] * 3
    for trial in trials:
        reported = [
            event["accuracy"] for event in trial_events(folder, trial["number"]) if event.get("step") == 4
        ]
        assert trial["metrics"]["accuracy"] == reported[0], "as it stood at step 4"
