"""``edldist tune`` as a process: trials beside their controls, and ``kill -9``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.launching import running, until
from tests.integration.tunings import (
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

pytestmark = pytest.mark.timeout(240)


def test_every_trial_is_a_job_with_a_folder_beside_the_control_of_its_window(
    start: Start, folder: Path
) -> None:
    output, _ = (tuning := start()).communicate()
    assert tuning.returncode == 0, output
    document = tune_json(folder)
    trials = document["trials"]
    assert document["status"] == "completed"
    assert [(each["window"], each["control"]) for each in trials] == [
        (window, control) for window in (0, 1) for control in (True, False, False, False)
    ]
    for trial in trials:
        result = json.loads(
            (folder / "out" / "trials" / f"{trial['number']:04d}" / "result.json").read_text()
        )
        assert (result["status"], result["steps"]) == ("completed", 10)
        assert trial["metrics"]["seed"] == result["metrics"]["seed"] == 7 + trial["window"]
        assert trial["metrics"]["accuracy"] == result["metrics"]["accuracy"]
        control = trials[4 * trial["window"]]
        expected = trial["metrics"]["accuracy"] / control["metrics"]["accuracy"]
        assert trial["ratios"] == {"accuracy": pytest.approx(expected)}
    assert starts(folder) == Counter(range(8))
    best = max((each for each in trials if not each["control"]), key=lambda each: each["ratios"]["accuracy"])
    assert document["best_values"]["--lr"] == pytest.approx(best["values"]["--lr"], rel=0.3)
    assert 'edldist run job.yaml --set \'student.args=["--lr", ' in output
    assert {"tune.png", "report.md", "job.yaml"} <= {path.name for path in (folder / "out").iterdir()}
    assert not any(running(pid) for pid in pids(folder))


@pytest.mark.slow
def test_a_tuning_that_is_killed_goes_on_with_no_trial_lost_or_run_twice(start: Start, folder: Path) -> None:
    (folder / "hold-3").touch()
    first = start()
    until(lambda: states(folder)[2:4] == ["done", "running"] and starts(folder)[3] == 1)
    kept = tune_json(folder)["trials"]
    until(lambda: any(event["event"] == "report" and event["step"] == 5 for event in trial_events(folder, 3)))
    first.kill()
    first.wait()
    until(lambda: not any(running(pid) for pid in pids(folder)))
    (folder / "hold-3").unlink()
    output, _ = (second := start()).communicate()
    assert second.returncode == 0, output
    assert "going on: " in output and "trial 3 goes on" in output
    after = tune_json(folder)["trials"]
    assert len(after) == 8 and {trial["state"] for trial in after} == {"done"}
    assert [trial["values"] for trial in after[: len(kept)]] == [trial["values"] for trial in kept]
    assert after[2]["metrics"] == kept[2]["metrics"]
    again = {number for number, count in starts(folder).items() if count > 1}
    assert 3 in again and len(again) <= 2, "only what was under way: two at a time"
    assert set(starts(folder)) == set(range(8))
    assert not any(running(pid) for pid in pids(folder))


@pytest.mark.slow
def test_a_quiet_tuning_says_nothing_where_nothing_goes_wrong(start: Start, folder: Path) -> None:
    output, _ = (tuning := start(trials=2, quiet=True)).communicate()
    assert (tuning.returncode, output) == (0, "")
    assert tune_json(folder)["status"] == "completed"
