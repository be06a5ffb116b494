"""Where figures go beside the record: chosen, fed, and of no harm."""

from __future__ import annotations

import builtins
import importlib.util
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edldist.config import load_job
from edldist_launch.track import feed as feeds
from edldist_launch.track.choice import Chosen, choose
from edldist_launch.track.feed import TrackerFeed
from edldist_launch.track.opening import feed_of, settings_of
from edldist_launch.track.tracker import Figures, Run, not_importable
from tests.unit.jobs import FULL, MINIMAL

ROOT = Path(__file__).resolve().parents[2]


class TestChoice:
    @pytest.mark.parametrize(
        ("named", "environment", "chosen"),
        [
            (None, {}, []),
            (None, {"WANDB_PROJECT": "p"}, ["wandb"]),
            (None, {"MLFLOW_TRACKING_URI": "http://m"}, ["mlflow"]),
            (None, {"TENSORBOARD_LOGGING_DIR": "/tb"}, ["tensorboard"]),
            (None, {"WANDB_API_KEY": "k", "WANDB_MODE": "online", "MLFLOW_EXPERIMENT_NAME": "e"}, []),
            (None, {"WANDB_PROJECT": "", "MLFLOW_TRACKING_URI": ""}, []),
            (None, {"WANDB_PROJECT": "p", "WANDB_MODE": "disabled"}, []),
            (None, {"WANDB_PROJECT": "p", "WANDB_DISABLED": "true"}, []),
            (None, {"WANDB_PROJECT": "p", "WANDB_DISABLED": "false"}, ["wandb"]),
            ([], {"WANDB_PROJECT": "p", "MLFLOW_TRACKING_URI": "http://m"}, []),
            (["tensorboard"], {"WANDB_PROJECT": "p"}, ["tensorboard"]),
            (["wandb", "mlflow", "wandb"], {}, ["wandb", "mlflow"]),
            (["wandb"], {"WANDB_MODE": "disabled"}, []),
        ],
    )
    def test_the_job_file_decides_and_else_the_tools_own_variables(
        self, named: list[str] | None, environment: Mapping[str, str], chosen: list[str]
    ) -> None:
        assert [each.name for each in choose(named, environment)] == chosen

    def test_it_is_said_why(self) -> None:
        assert choose(None, {"WANDB_PROJECT": "p"})[0].why == "WANDB_PROJECT is set"
        assert choose(["wandb"], {})[0].why == "the job file names it"

    def test_a_job_is_told_without_what_may_be_secret(self, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_text(FULL)
        job = load_job(tmp_path / "job.yaml")
        settings = settings_of(job)
        assert (
            settings["student"]["args"][:2] == ["--epochs", "5"] and settings["teachers"][0]["name"] == "big"
        )
        told = json.dumps(settings)
        assert '"env"' not in told and "kubernetes" not in settings and "slurm" not in settings
        assert [each.name for each in feed_of("j", tmp_path, {}, job).chosen] == ["wandb", "tensorboard"]

    def test_without_a_choice_nothing_is_imported(self, tmp_path: Path) -> None:
        (tmp_path / "job.yaml").write_text(MINIMAL)
        program = (
            "import sys; from pathlib import Path; from edldist.config import load_job;"
            "from edldist_launch.track.opening import feed_of;"
            "feed = feed_of('j', Path(), {}, load_job(Path('job.yaml')));"
            "feed.take({'event': 'report', 'rank': 0, 't': 0.0, 'loss': 1.0}); feed.end('completed', {});"
            "print(sorted({'torch', 'tensorboard', 'wandb', 'mlflow', 'numpy'} & set(sys.modules)))"
        )
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == ("[]\n", "")


class Kept:
    """A tracker that keeps what it is told."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.id = run.known.get("kept", "first")
        self.told: list[Figures] = []
        self.ended: tuple[str, Mapping[str, float]] | None = None

    def log(self, figures: Figures) -> None:
        self.told.append(figures)

    def end(self, status: str, result: Mapping[str, float]) -> None:
        self.ended = status, result


class Unreachable(Kept):
    def log(self, figures: Figures) -> None:
        raise ConnectionError("no route to host\nand a long trace")


def feed(folder: Path, *makers: tuple[str, Any]) -> TrackerFeed:
    chosen = [Chosen(name, "a test says so") for name, _ in makers]
    return TrackerFeed(chosen, Run("toy", folder, {"a": 1}, {}), dict(makers))


def report(t: float, rank: int = 0, **values: Any) -> dict[str, Any]:
    return {"event": "report", "t": t, "rank": rank, **values}


class TestFeed:
    def test_figures_of_rank_0_go_to_every_tracker_at_their_step(self, tmp_path: Path) -> None:
        made: list[Kept] = []

        def keep(run: Run) -> Kept:
            made.append(Kept(run))
            return made[-1]

        fed = feed(tmp_path, ("kept", keep), ("too", keep))
        fed.take(report(1.0, step=1, steps=9, epoch=0, loss=2.0, note="words", ok=True))
        fed.take(report(2.0, rank=1, step=7, loss=5.0))
        fed.take(
            {"event": "progress", "t": 3.0, "step": 1, "samples_per_s": 64.0, "workers": 2, "buffered": 3}
        )
        fed.take({"event": "teacher_lost", "t": 3.5, "id": "t1"})
        fed.take(report(4.0, loss=float("nan")))
        fed.end("completed", {"loss": 0.5, "note": "words"})
        for each in made:
            first, job, last = each.told
            assert first == Figures(1, 1.0, {"epoch": 0.0, "loss": 2.0, "ok": 1.0})
            assert (job.step, job.values["edldist/samples_per_s"], job.values["edldist/workers"]) == (
                1,
                64.0,
                2,
            )
            assert last.step == 1 and last.values["loss"] != last.values["loss"]
            assert each.ended == ("completed", {"loss": 0.5})
        assert len(made) == 2

    def test_nothing_is_made_before_the_first_figures(self, tmp_path: Path) -> None:
        fed = feed(tmp_path, ("kept", lambda run: pytest.fail("made too early")))
        fed.take({"event": "teacher_joined", "t": 0.0})
        fed.take(report(1.0, step=3))
        fed.end("failed", {})
        assert not list(tmp_path.iterdir())

    def test_a_run_that_goes_on_is_the_same_one(self, tmp_path: Path) -> None:
        known: list[Mapping[str, str]] = []

        def keep(run: Run) -> Kept:
            known.append(run.known)
            return Kept(run)

        for _ in range(2):
            fed = feed(tmp_path, ("kept", keep))
            fed.take(report(1.0, loss=1.0))
            fed.end("interrupted", {})
        assert known[1] == {"kept": "first"}
        (tmp_path / ".trackers.json").write_text("half of it {")
        fed = feed(tmp_path, ("kept", keep))
        fed.take(report(1.0, loss=1.0))
        fed.end("completed", {})
        assert known[2] is not known[1] and json.loads((tmp_path / ".trackers.json").read_text())

    def test_one_that_is_unreachable_is_said_once_and_harms_no_other(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        made: list[Kept] = []

        def keep(run: Run) -> Kept:
            made.append(Kept(run))
            return made[-1]

        fed = feed(tmp_path, ("bad", Unreachable), ("kept", keep))
        with caplog.at_level(logging.WARNING):
            for step in range(5):
                fed.take(report(float(step), step=step, loss=1.0))
            fed.end("completed", {})
        (said,) = caplog.messages
        assert said == "no figures go to bad any more, the job goes on: no route to host"
        assert len(made[0].told) == 5 and made[0].ended is not None

    def test_what_a_library_raises_is_said_without_keys_and_passwords(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "k3y-of-somebody")

        class Quotes(Kept):
            def log(self, figures: Figures) -> None:
                raise ConnectionError("no answer at https://me:p4ss@host/api with k3y-of-somebody")

        fed = feed(tmp_path, ("bad", Quotes))
        with caplog.at_level(logging.DEBUG, "edldist_launch.track.feed"):
            fed.take(report(1.0, loss=1.0))
            fed.end("completed", {})
        assert (
            "no figures go to bad any more, the job goes on: no answer at https://(not shown)@host"
            in caplog.text
        )
        assert "Traceback" in caplog.text
        assert "p4ss" not in caplog.text and "k3y" not in caplog.text

    @pytest.mark.parametrize("here", [True, False])
    def test_it_is_said_at_the_start_where_figures_go_or_why_they_do_not(
        self, here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(feeds, "find_spec", lambda name: object() if here else None)
        (said,) = TrackerFeed(
            [Chosen("wandb", "the job file names it")], Run("toy", tmp_path, {}, {})
        ).words()
        assert said == (
            "figures go to wandb (the job file names it)"
            if here
            else "no figures will go to wandb (the job file names it), and the job runs: wandb is not "
            "installed: pip install 'edldist[wandb]'"
        )

    @pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
    def test_one_that_is_not_installed_is_said_with_what_to_do(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        imported = builtins.__import__

        def refuse(module: str, *args: Any, **kwargs: Any) -> Any:
            if module.partition(".")[0] == name:
                raise ImportError(f"No module named {module!r}")
            return imported(module, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        fed = TrackerFeed([Chosen(name, "")], Run("toy", tmp_path, {}, {}))
        with caplog.at_level(logging.WARNING):
            fed.take(report(1.0, loss=1.0))
            fed.take(report(2.0, loss=1.0))
            fed.end("completed", {})
        (said,) = caplog.messages
        assert f"{name} is not installed: pip install 'edldist[{name}]'" in said

    def test_one_that_hangs_holds_the_end_up_for_a_while_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(feeds, "END_S", 0.05)
        monkeypatch.setattr(feeds, "MOST_WAITING", 3)
        free = threading.Event()

        class Hangs(Kept):
            def log(self, figures: Figures) -> None:
                assert free.wait(60)

        fed = feed(tmp_path, ("hangs", Hangs))
        with caplog.at_level(logging.WARNING):
            for step in range(10):
                fed.take(report(float(step), loss=1.0))
            fed.end("completed", {})
        free.set()
        assert [said.partition(":")[0] for said in caplog.messages] == [
            "trackers do not keep up",
            "trackers (hangs) have not taken all figures within 0.05 s",
        ]

    def test_the_end_reaches_one_that_does_not_keep_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Behind all that waits, which is left out: else a tracker never hears that the run is over."""
        monkeypatch.setattr(feeds, "END_S", 0.05)
        monkeypatch.setattr(feeds, "MOST_WAITING", 3)
        free, made = threading.Event(), []

        class Slow(Kept):
            def __init__(self, run: Run) -> None:
                super().__init__(run)
                made.append(self)

            def log(self, figures: Figures) -> None:
                assert free.wait(60)
                super().log(figures)

        fed = feed(tmp_path, ("slow", Slow))
        for step in range(10):
            fed.take(report(float(step), loss=1.0))
        fed.end("completed", {"loss": 1.0})
        free.set()
        fed._thread.join(60)
        (slow,) = made
        assert slow.ended == ("completed", {"loss": 1.0}) and len(slow.told) == 1

    def test_one_that_lacks_something_itself_is_not_called_absent(self, tmp_path: Path) -> None:
        absent = ModuleNotFoundError("No module named 'mlflow'", name="mlflow.entities")
        assert "is not installed" in str(not_importable("mlflow", absent))
        lacking = ModuleNotFoundError("No module named 'requests'", name="requests")
        said = str(not_importable("mlflow", lacking))
        assert "installed, and cannot be imported: No module named 'requests'" in said


def tracked(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """A run of three steps, told to a real tracker."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed (pip install 'edldist[{name}]')")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    fed = TrackerFeed([Chosen(name, "")], Run("toy", folder, {"student": {"script": "s.py"}}, {}))
    for step in range(3):
        fed.take(report(1000.0 + step, step=step, loss=2.0 - step, **{"auc@10%": 0.5}))
    fed.end("completed", {"loss": 0.0})


def test_tensorboard_reads_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    tracked(tmp_path, "tensorboard", monkeypatch)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value, each.wall_time) for each in events.Scalars("loss")] == [
        (0, 2.0, 1000.0),
        (1, 1.0, 1001.0),
        (2, 0.0, 1002.0),
    ]
    assert events.Tags()["scalars"] == ["loss", "auc@10%"]


@pytest.mark.slow
def test_wandb_takes_a_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked(tmp_path, "wandb", monkeypatch, WANDB_MODE="offline", WANDB_PROJECT="p")
    own = json.loads((tmp_path / ".trackers.json").read_text())["wandb"]
    (run,) = (tmp_path / "wandb").glob(f"offline-run-*-{own}/run-{own}.wandb")
    content = run.read_bytes()
    assert b"loss" in content and b"s.py" in content and b"completed" in content


@pytest.mark.slow
def test_wandb_keeps_its_files_where_its_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    tracked(tmp_path / "job", "wandb", monkeypatch, WANDB_MODE="offline", WANDB_DIR=str(place))
    assert list(place.glob("wandb/offline-run-*")) and not list((tmp_path / "job").glob("wandb/*"))


@pytest.mark.slow
def test_wandb_without_a_key_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    with caplog.at_level(logging.WARNING):
        tracked(tmp_path, "wandb", monkeypatch, WANDB_MODE="online")
    assert "wandb has no API key: run 'wandb login'" in caplog.text


@pytest.mark.slow
def test_mlflow_keeps_a_run_in_its_file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = f"file://{tmp_path / 'mlruns'}"
    variables = {"MLFLOW_TRACKING_URI": store, "MLFLOW_ALLOW_FILE_STORE": "true"}
    tracked(tmp_path, "mlflow", monkeypatch, MLFLOW_EXPERIMENT_NAME="e", **variables)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store)
    own = json.loads((tmp_path / ".trackers.json").read_text())["mlflow"]
    run = client.get_run(own)
    assert (run.info.status, run.data.params) == ("FINISHED", {"student.script": "s.py"})
    assert [(each.step, each.value) for each in client.get_metric_history(own, "loss")] == [
        (0, 2.0),
        (1, 1.0),
        (2, 0.0),
    ]
    assert run.data.metrics["auc_10_"] == 0.5
    tracked(tmp_path, "mlflow", monkeypatch)  # gone on with
    assert len(client.get_metric_history(own, "loss")) == 6


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sqlalchemy") is not None, reason="mlflow itself is installed")
def test_a_small_mlflow_without_a_server_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        tracked(tmp_path / "job", "mlflow", monkeypatch)
    assert "keeps no runs in a database (sqlite, as" in caplog.text
    assert "set MLFLOW_TRACKING_URI to a server" in caplog.text


@pytest.mark.slow
def test_mlflow_that_is_unreachable_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with caplog.at_level(logging.WARNING):
        tracked(tmp_path, "mlflow", monkeypatch, **nobody)
    assert "no figures go to mlflow any more, the job goes on" in caplog.text
