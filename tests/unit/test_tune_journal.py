"""The file of a tuning: whole at every moment, and what a later process goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edldist.errors import ConfigError, LaunchError
from edldist_launch.record.earlier import EarlierRun
from edldist_launch.tune.folder import TuningFolder
from edldist_launch.tune.journal import NAME, Journal, Kept, Trial
from edldist_launch.tune.space import deciding_space, tuning_digest
from tests.unit.tuning import job, space

TRIALS = [
    Trial(number=0, window=0, control=True, values={"--lr": 0.02}, seed=3, state="done", metrics={"a": 0.5}),
    Trial(number=1, window=0, control=False, values={"--lr": 1e-4, "--n": 3, "--m": True}, state="running"),
]


def kept(digest: str = "d1") -> Kept:
    return Kept(job="toy", digest=digest, space=deciding_space(space()), trials=TRIALS)


def test_what_is_written_is_read_back_with_what_is_for_readers_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.read() is None
    journal.write(
        kept(), {"status": "running"}, [{"ratios": {}}, {"ratios": {"a": 1.5}, "gain": float("nan")}]
    )
    assert journal.read() == kept()
    document = json.loads((tmp_path / NAME).read_text())
    assert document["status"] == "running"
    assert document["trials"][1]["ratios"] == {"a": 1.5}
    assert document["trials"][1]["gain"] is None
    assert isinstance(document["trials"][1]["values"]["--n"], int)


def test_a_disk_that_does_not_take_it_leaves_the_former_content(tmp_path: Path, monkeypatch) -> None:
    journal = Journal(tmp_path)
    journal.write(kept(), {}, [{}, {}])

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edldist_launch.tune.journal.replace_file", full)
    with pytest.raises(LaunchError, match="No space left on device.*no trial starts that is not written"):
        journal.write(kept("d2"), {}, [{}, {}])
    assert journal.read() == kept()


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"job": 3')
    with pytest.raises(ConfigError, match="cannot be read.*choose another --output"):
        Journal(tmp_path).read()


def test_a_folder_of_another_space_is_refused_with_both_digests_and_the_difference(tmp_path: Path) -> None:
    first, other = (
        space(),
        space(window=5, keys={**space().model_dump()["keys"], "--mode": {"choices": ["a", "b"]}}),
    )
    ours, theirs = tuning_digest(first, job()), tuning_digest(other, job())
    with TuningFolder(tmp_path, job(), first, ours) as folder:
        folder.journal.write(kept(ours), {}, [{}, {}])
    with TuningFolder(tmp_path, job(), first, ours) as folder:
        assert folder.earlier is not None and folder.earlier.trials == TRIALS
    with pytest.raises(ConfigError) as refused:
        TuningFolder(tmp_path, job(), other, theirs)
    said = str(refused.value)
    assert f"digest {ours}, this one's is {theirs}" in said
    assert "window: 4 -> 5" in said
    assert '--mode: {"choices": ["a", "b", "c"]} -> {"choices": ["a", "b"]}' in said


def test_one_process_at_a_time_holds_a_tuning(tmp_path: Path) -> None:
    digest = tuning_digest(space(), job())
    with (
        TuningFolder(tmp_path, job(), space(), digest),
        pytest.raises(ConfigError, match="another run .* is writing to"),
    ):
        TuningFolder(tmp_path, job(), space(), digest)


def test_a_run_and_a_tuning_do_not_share_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run of edldist run .* and no tuning"):
        TuningFolder(tmp_path / "run", job(), space(), "d")
    Journal(tmp_path).write(kept(), {}, [{}, {}])
    with pytest.raises(ConfigError, match="holds a tuning of edldist tune"):
        EarlierRun.read(tmp_path)
