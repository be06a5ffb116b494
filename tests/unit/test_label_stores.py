"""``edldist label --verify`` and ``--merge`` on stores that were filled here, without a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import parse_spec
from edldist.store.label_store import LabelStore
from edldist.store.recipe import Recipe
from edldist.store.sample_key import keys_of_ids
from edldist.wire.messages import TensorSpec
from edldist_launch.cli import cli
from edldist_launch.job.label_stores import labels_of
from edldist_launch.plan.labelling import load_label_job
from tests.label_files import check_numbers, listed_files

DATA = "numbers, version 1"
JOB = f"""\
name: toy
teachers: [{{model: "tests.models:identify", version: "1"}}]
label: {{data: "tests.models:Numbers", kwargs: {{count: 600}}, inputs: id, ids: index}}
store: {{path: kept, data: "{DATA}"}}
"""

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fill:
    """Puts labels of numbers into a store, as a job would."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)

    def put(name: str, first: int = 0, last: int = 600, version: str = "1", data: str = DATA) -> Path:
        made_by = Fingerprint(model="tests.models:identify", version=version, codec=parse_spec("dense"))
        numbers = np.arange(first, last)
        labels = np.stack([numbers, 2 * numbers + 1], axis=1).astype(np.float64)
        keys = keys_of_ids(data, numbers.tolist())
        with LabelStore(tmp_path / name) as store:
            shelf = store.shelf(Recipe(fingerprint=made_by, data=data))
            specs = [TensorSpec(name="logits", dtype="float64", shape=[len(numbers), 2])]
            shelf.put(keys, specs, [labels.tobytes()], np.zeros_like(keys))
        return tmp_path / name

    return put


def label(*args: str) -> Result:
    return CliRunner().invoke(cli, ["label", *args], standalone_mode=False)


def said(result: Result) -> str:
    return str(result.exception) if result.exception else result.output


def test_a_sound_store_is_told_with_what_it_holds(fill: Fill) -> None:
    fill("kept")
    result = label("--verify", "kept")
    assert result.return_value == 0, said(result)
    assert f"600 samples of tests.models:identify (version 1, dense, {DATA}) in 1 files of" in result.output
    assert "all sound" in result.output


def test_every_sample_of_a_jobs_data_set_is_looked_for(fill: Fill) -> None:
    fill("kept")
    result = label("--verify", "kept", "job.yaml")
    assert result.return_value == 0, said(result)
    assert "teacher: 600 of 600 samples of tests.models:Numbers are there" in result.output
    fewer = label("--verify", "kept", "job.yaml", "--set", "label.kwargs.count=590")
    assert fewer.return_value == 0
    assert "590 of 590 samples of tests.models:Numbers are there, and 10 of other data" in fewer.output


def test_what_is_missing_is_named(fill: Fill) -> None:
    fill("kept", last=597)
    result = label("--verify", "kept", "job.yaml")
    assert result.return_value == 1
    assert "teacher: 3 samples have no labels, the first are 597, 598, 599" in result.output


def test_a_sample_in_two_files_is_named(fill: Fill) -> None:
    fill("kept")
    fill("other", first=100, last=105)
    (file,) = listed_files(Path("other"))
    shelf = listed_files(Path("kept"))[0].parent
    (shelf / file.name).write_bytes(file.read_bytes())
    fill("kept")  # whoever opens a store lists what nobody has listed
    result = label("--verify", "kept", "job.yaml")
    assert result.return_value == 1
    assert "5 samples are there more than once" in result.output


def test_flipped_bits_are_found(fill: Fill) -> None:
    store = fill("kept")
    (file,) = listed_files(store)
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    result = label("--verify", "kept", "-q")
    assert result.return_value == 1
    assert file.name in result.output


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("store.data=others", "data 'numbers, version 1' instead of 'others'"),
        ('teachers.0.version="2"', "version '1' instead of '2'"),
        ("teachers.0.codec=topk:1", "codec 'dense' instead of 'topk:1'"),
        ("store.preprocessing=resized", "preprocessing '' instead of 'resized'"),
    ],
)
def test_labels_of_another_recipe_are_told_apart_in_words(fill: Fill, override: str, words: str) -> None:
    fill("kept")
    result = label("--verify", "kept", "job.yaml", "--set", override)
    assert result.exception is not None and words in str(result.exception)


def test_a_data_set_that_is_known_by_its_inputs_alone_is_read(fill: Fill) -> None:
    """None of the keys are those of ids: what was labelled by ids is not there for who has none."""
    fill("kept")
    result = label("--verify", "kept", "job.yaml", "--set", "label.ids=")
    assert result.exception is not None and "none like that" in str(result.exception)


def test_stores_of_two_clusters_become_one(fill: Fill) -> None:
    fill("a", 0, 400)
    fill("b", 300, 600)
    result = label("--merge", "both", "a", "b")
    assert result.return_value == 0, said(result)
    assert "a: 400 samples came" in result.output and "b: 200 samples came" in result.output
    check_numbers(Path("both"), DATA, 600)
    again = label("--merge", "both", "b")
    assert "b: 0 samples came" in again.output
    check_numbers(Path("both"), DATA, 600)
    check_numbers(Path("a"), DATA, 400)


@pytest.mark.parametrize(
    ("other", "words"),
    [({"version": "2"}, "version 2 instead of 1"), ({"data": "letters"}, "data 'letters' instead of")],
)
def test_foreign_labels_are_refused_in_words_and_nothing_is_merged(
    fill: Fill, other: dict[str, str], words: str
) -> None:
    fill("a", 0, 100)
    fill("b", **other)
    for target in ("new", "a"):
        before = listed_files(Path(target))
        result = label("--merge", target, *([] if target == "a" else ["a"]), "b")
        assert words in str(result.exception) and "Nothing was merged" in str(result.exception)
        assert listed_files(Path(target)) == before


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--verify", "nowhere"), "nowhere is no store of labels: it has no folder recipes/"),
        (("--merge", "new", "nowhere"), "nowhere is no store of labels"),
        (("--merge", "kept", "./kept"), "a store is not merged into itself"),
    ],
)
def test_what_is_no_store_is_refused(fill: Fill, args: tuple[str, ...], words: str) -> None:
    fill("kept")
    result = label(*args)
    assert words in str(result.exception)
    assert not Path("new").exists()


def test_a_result_holds_what_the_lists_say(fill: Fill) -> None:
    store = fill("kept")
    (labels,) = labels_of(load_label_job(Path("job.yaml"), [], str(store)))
    nbytes = sum(file.stat().st_size for file in listed_files(store))
    assert (labels["samples"], labels["files"], labels["bytes"]) == (600, 1, nbytes)
    assert labels["model"] == "tests.models:identify"
