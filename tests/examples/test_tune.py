"""The example of tuning: its surface, a tuning on it at toy size, and its job."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edldist.config import load_job
from edldist_launch.plan.commands import own_command
from edldist_launch.tune.settings import Settings
from edldist_launch.tune.space import load_space
from examples.tune.simulate import METHODS, tune_surface
from examples.tune.surface import BASE, SPACE, Surface

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "examples" / "tune"


def test_a_surface_follows_from_its_seed_and_its_control_is_at_one() -> None:
    one, same, other = Surface(100), Surface(100), Surface(101)
    assert one.of(BASE) == {"quality": 1.0, "cost": 1.0, "recall": 1.0}
    values = {**BASE, "--alpha": 0.8}
    assert one.measure(values, 3, 7, 0) == same.measure(values, 3, 7, 0) != other.measure(values, 3, 7, 0)
    assert 0.02 < one.best_gain < 0.5


def test_what_drifts_with_a_window_is_many_times_the_noise_and_cancels_in_ratios() -> None:
    surface = Surface(100)
    levels = [surface.measure(BASE, window, 0, 0)["quality"] for window in range(20)]
    assert np.std(levels) / np.mean(levels) > 0.05
    values = {**BASE, "--alpha": 0.8}
    true = surface.of(values)["quality"]
    for window in range(20):
        control = np.mean([surface.measure(BASE, window, n, 0)["quality"] for n in range(200)])
        trials = np.mean([surface.measure(values, window, 200 + n, 0)["quality"] for n in range(200)])
        assert trials / control == pytest.approx(true, abs=0.005)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_spends_its_trials_and_recommends(method: str, tmp_path: Path) -> None:
    outcome = tune_surface(method, 100, 1, tmp_path)
    assert outcome.share < 1.01
    trials = json.loads((tmp_path / "tune.json").read_text())["trials"]
    assert Counter(trial["control"] for trial in trials) == {False: SPACE.window, True: SPACE.controls}
    assert {trial["state"] for trial in trials} == {"done"}


def test_the_jobs_own_settings_lie_in_its_space() -> None:
    settings = Settings(load_space(HERE / "space.yaml"), load_job(HERE / "job.yaml"))
    assert settings.base == {"--lr": 0.001, "--temperature": 1, "--weight-decay": 0.01, "--batch-size": 64}


@pytest.mark.slow
def test_the_job_is_tuned_at_toy_size_and_goes_on_with_more_trials(tmp_path: Path) -> None:
    args = "[--epochs, 1, --batch-size, 64, --lr, 0.001, --weight-decay, 0.01, --temperature, 1, --seed, 0]"
    for trials, ended in ((2, 3), (3, 5)):
        command = own_command("tune", "examples/tune/job.yaml", "--space", "examples/tune/space.yaml")
        options = [
            "--trials",
            str(trials),
            "--output",
            str(tmp_path / "out"),
            "--set",
            f"student.args={args}",
        ]
        done = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        document = json.loads((tmp_path / "out" / "tune.json").read_text())
        assert [trial["state"] for trial in document["trials"]] == ["done"] * ended
    for trial in document["trials"]:
        result = json.loads(
            (tmp_path / "out" / "trials" / f"{trial['number']:04d}" / "result.json").read_text()
        )
        assert result["status"] == "completed"
        assert result["metrics"]["lost"] == result["metrics"]["repeated"] == 0
        assert result["samples"] == 1198, "its own samples, and not those of the trial beside it"
