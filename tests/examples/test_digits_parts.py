"""The digits example's parts, without a job: data, models, preparation, the sweep's table."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edldist.config import dump_job, load_job
from edldist.sampling.choice import position_of
from edldist.sampling.sampled import SampledPosition
from examples.common.kept import write_json
from examples.common.sweep import Sweep
from examples.digits import plain, prepare, recipe, sweep, variants
from examples.digits.census import Census
from examples.digits.data import DrawSampler, labelled, splits, train_loader, unlabelled
from examples.digits.models import parameters, student, teacher

JOB = Path(sweep.JOB)


def test_the_student_is_at_least_20_times_smaller_than_the_teacher():
    assert parameters(teacher()) >= 20 * parameters(student()) > 0


def test_both_models_take_image_and_return_ten_logits():
    image = torch.rand(3, 1, 16, 16)
    assert teacher().eval()(image=image).shape == student()(image=image).shape == (3, 10)


def test_the_split_is_disjoint_complete_stratified_and_does_not_move_with_the_seed():
    train, test = splits(seed=0)
    assert len(train) + len(test) == 1797
    known = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in known for image in test.images)
    share = torch.bincount(train.labels).double() / torch.bincount(torch.cat([train.labels, test.labels]))
    assert (share - 2 / 3).abs().max() < 0.01
    moved_train, moved_test = splits(seed=1)
    assert torch.equal(train.images, moved_train.images) and torch.equal(test.images, moved_test.images)


def test_a_draw_is_the_same_image_bit_for_bit_in_whatever_batch_it_is_made():
    train, _ = splits(seed=0)
    draws = [5 * len(train) + index for index in range(64)]
    whole = train.__getitems__(draws)
    again, _ = splits(seed=0)
    backwards = again.__getitems__(draws[::-1])
    assert torch.equal(whole["image"], backwards["image"].flip(0))
    for place in (0, 17, 63):
        alone = again[draws[place]]
        assert torch.equal(alone["image"], whole["image"][place])
        assert alone["label"] == whole["label"][place] == train.labels[place]
        assert alone["draw"] == draws[place]


@pytest.mark.parametrize("other", ["epoch", "seed"])
def test_another_epoch_or_seed_brings_another_image_of_every_sample(other):
    train, _ = splits(seed=0)
    indices = range(len(train))
    first = train.__getitems__(indices)
    if other == "epoch":
        second = train.__getitems__([len(train) + index for index in indices])
    else:
        second = splits(seed=1)[0].__getitems__(indices)
    assert torch.equal(first["label"], second["label"])
    difference = (first["image"] - second["image"]).abs().amax(dim=(1, 2, 3))
    assert (difference > 0.01).all()


def test_no_two_samples_share_their_rotation_and_shift():
    train, _ = splits(seed=0)
    prone = torch.zeros(1, 8, 8)
    prone[:, 2:6, 2:6] = torch.arange(16.0).view(4, 4)
    train.images = prone.expand(len(train), 1, 8, 8)  # one picture: what differs is the augmentation
    image = train.__getitems__(range(500))["image"]
    assert torch.unique(image.flatten(1), dim=0).shape[0] == 500


def test_the_test_set_is_never_augmented():
    _, test = splits(seed=0)
    assert torch.equal(test[3]["image"], test[3 + len(test)]["image"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loaders_batches_carry_their_epoch_to_the_dataset(workers):
    train, _ = splits(seed=0)
    sampler = DrawSampler(len(train), 600, seed=0, rank=0, world_size=1)
    loader = train_loader(train, sampler, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = list(loader)
        draws = torch.cat([batch["draw"] for batch in batches])
        assert sorted(draws.tolist()) == list(range(epoch * len(train), (epoch + 1) * len(train)))
        expected = train.__getitems__(draws.tolist())
        assert torch.equal(torch.cat([batch["image"] for batch in batches]), expected["image"])
        assert batches[0]["image"].shape == (600, 1, 16, 16) and batches[0]["image"].dtype == torch.float32
        assert batches[0]["label"].dtype == batches[0]["draw"].dtype == torch.int64


def test_two_ranks_draw_the_parts_of_one_ranks_global_batches():
    def draws(rank, ranks):
        sampler = DrawSampler(100, 32, seed=7, rank=rank, world_size=ranks)
        sampler.set_epoch(3)
        return list(sampler)

    halves = [first + second for first, second in zip(draws(0, 2), draws(1, 2), strict=True)]
    assert halves == draws(0, 1)
    assert sorted(sum(halves, [])) == list(range(300, 400))


def test_a_distill_loader_would_track_the_position_through_the_sampler():
    train, _ = splits(seed=0)
    loader = train_loader(train, DrawSampler(len(train), 64, rank=0, world_size=1))
    assert isinstance(position_of(loader), SampledPosition)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("EDLDIST_OUTPUT", str(tmp_path / "job"))
    return [
        "--epochs",
        "1",
        "--batch-size",
        "256",
        "--teacher-epochs",
        "1",
        "--build",
        str(tmp_path / "build"),
    ]


def test_prepare_makes_loadable_weights_and_a_reference_then_reuses_both(toy, tmp_path, monkeypatch, capsys):
    prepare.main(toy)
    assert "training for 1 epochs" in capsys.readouterr().out
    teacher().load_state_dict(load_file(tmp_path / "build" / "teacher.safetensors"))
    written = json.loads((tmp_path / "job" / "reference.json").read_text())
    assert 0 < written["teacher_accuracy"] < 1 and len(written["plain_accuracy"]) == 1
    assert sorted(path.suffix for path in (tmp_path / "build").iterdir()) == [".json", ".safetensors"]

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(prepare, "train_teacher", refuse)
    monkeypatch.setattr(prepare, "train_plain", refuse)
    prepare.main(toy)
    assert json.loads((tmp_path / "job" / "reference.json").read_text()) == written
    with pytest.raises(AssertionError, match="trained again"):
        prepare.main([*toy, "--seed", "1"])
    with pytest.raises(AssertionError, match="trained again"):
        prepare.main([*toy, "--teacher-epochs", "2"])


@pytest.mark.slow
def test_prepare_replaces_weights_that_cannot_be_read(toy, tmp_path):
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "teacher.safetensors").write_bytes(b"half a file")
    prepare.main(toy)
    teacher().load_state_dict(load_file(tmp_path / "build" / "teacher.safetensors"))


@pytest.mark.slow
def test_the_plain_student_depends_on_its_budget_alone():
    def train(*arguments):
        args = recipe.options(None).parse_args(["--epochs", "3", "--batch-size", "128", *arguments])
        return plain.train_plain(args, lambda _: None)

    assert train() == train("--temperature", "1") != train("--seed", "1")
    assert train() != train("--labels-per-class", "6")


def test_a_reference_of_another_budget_is_not_compared_with(tmp_path, capsys):
    args = recipe.options(None).parse_args([])
    assert recipe.reference(args, tmp_path) is None
    written = {"budget": recipe.budget(args), "teacher_accuracy": 0.99, "plain_accuracy": [0.5]}
    write_json(tmp_path / "reference.json", written)
    assert recipe.reference(args, tmp_path) == written
    assert recipe.reference(Namespace(**{**vars(args), "seed": 5}), tmp_path) is None
    assert "another budget" in capsys.readouterr().out


def test_prepare_gives_the_plain_student_the_budget_that_the_job_gives_the_distilled_one(toy, tmp_path):
    job = load_job(JOB, ['student.args=["--lr", "0.003", "--seed", "7"]'])
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "job.yaml").write_text(dump_job(job))
    prepare.main([*toy, "--seed", "8"])
    budget = json.loads((tmp_path / "job" / "reference.json").read_text())["budget"]
    assert (budget["lr"], budget["seed"], budget["epochs"]) == (0.003, 8, 1)  # what it is given itself wins


def test_the_scripts_defaults_are_the_jobs_settings():
    options = recipe.options(None)
    assert options.parse_args(load_job(JOB).student.args) == options.parse_args([])


def test_the_job_leaves_the_budget_to_the_student_and_names_weights_that_prepare_makes():
    job = load_job(JOB)
    assert job.prepare is not None and job.prepare.args == []
    root = JOB.parents[2]
    weights = root / str(job.teachers[0].weights)
    assert weights == prepare.HERE / "build" / "teacher.safetensors"
    assert (root / job.student.script).is_file() and (root / job.prepare.script).is_file()


def test_the_sweeps_table_has_a_row_a_seed_the_mean_and_deviation_and_the_lowest():
    found = {0: {"plain": 0.95, "distilled": 0.96}, 1: {"plain": 0.95, "distilled": 0.94}}
    lines = sweep.table(found).splitlines()
    assert lines[0] == "| seed | plain, 50 labels | distilled, no labels | gain |"
    assert lines[2:4] == ["| 0 | 95.00 | 96.00 | +1.00 |", "| 1 | 95.00 | 94.00 | -1.00 |"]
    assert lines[4] == "| mean ± sd | **95.00 ± 0.00** | **95.00 ± 1.41** | **0.00 ± 1.41** |"
    assert lines[5] == "| lowest | 95.00 | 94.00 | -1.00 |"
    assert len({line.count("|") for line in lines}) == 1


def test_what_the_sweep_has_trained_it_trains_again_only_when_something_changed(tmp_path, monkeypatch):
    calls = []

    def train(name, args, weights):
        calls.append((name, args.seed))
        return None, [0.1, 0.5]

    monkeypatch.setattr(sweep, "train_variant", train)
    kept = Sweep(sweep.HERE, tmp_path, prepare.modules(*sweep.MODULES))
    for seed in (1, 1, 2):
        assert sweep.trained(kept, "plain", seed, tmp_path / "weights") == 0.5
    assert calls == [("plain", 1), ("plain", 2)]
    changed = Sweep(sweep.HERE, tmp_path, prepare.modules("data"))
    sweep.trained(changed, "plain", 1, tmp_path / "weights")
    assert calls[-1] == ("plain", 1) and len(calls) == 3


def test_the_published_table_is_that_of_the_published_accuracies():
    found = sweep.load_seeds()
    assert sweep.table(found) in (JOB.parent / "README.md").read_text(encoding="utf-8")
    gains = sweep.gains(found)
    assert len(gains) >= 20 and min(gains) > 0


def test_the_labelled_images_are_so_many_of_each_class_and_drawn_anew_for_each_seed():
    train, _ = splits(seed=0)
    few = labelled(train, 5, seed=0)
    assert few.labels.bincount().tolist() == [5] * 10
    known = {
        image.numpy().tobytes(): int(label) for image, label in zip(train.images, train.labels, strict=True)
    }
    assert all(known[i.numpy().tobytes()] == int(n) for i, n in zip(few.images, few.labels, strict=True))
    assert len({image.numpy().tobytes() for image in few.images}) == 50
    assert torch.equal(few.images, labelled(train, 5, seed=0).images)
    assert not torch.equal(few.images, labelled(train, 5, seed=1).images)


@pytest.mark.parametrize("per_class", [0, 1000])
def test_labels_that_are_not_there_cannot_be_asked_for(per_class):
    train, _ = splits(seed=0)
    with pytest.raises(
        SystemExit, match=f"--labels-per-class {per_class}: class 0 has 11[0-9] training images"
    ):
        labelled(train, per_class, seed=0)


def test_few_images_come_again_in_another_view_each_time():
    few = labelled(splits(seed=0)[0], 5, seed=0)
    images = few.__getitems__(range(3 * 50))["image"].view(3, 50, -1)
    assert (images[0] != images[1]).any(1).all() and (images[1] != images[2]).any(1).all()


def test_the_images_to_distil_on_are_the_same_without_their_labels():
    train, _ = splits(seed=0)
    draws = [7, 8, len(train) + 7]
    bare, whole = unlabelled(train).__getitems__(draws), train.__getitems__(draws)
    assert set(bare) == {"image", "draw"} and torch.equal(bare["image"], whole["image"])


def test_the_census_counts_what_was_lost_and_repeated():
    census = Census(10)
    census.count(torch.tensor([0, 1, 2]))
    census.count(torch.tensor([2, 4]))
    assert census.lost_and_repeated(5) == (1, 1)
    assert census.lost_and_repeated(10) == (6, 1)
    census.count(torch.tensor([2, 3]))
    assert census.lost_and_repeated(5) == (0, 2)


def test_the_census_forgets_what_was_counted_after_the_checkpoint():
    census = Census(4)
    census.count(torch.tensor([0, 1]))
    state = census.state_dict()
    saved = {name: value.clone() for name, value in state.items()}
    census.count(torch.tensor([2, 3]))
    other = Census(4)
    other.count(torch.tensor([3]))
    other.load_state_dict(saved)
    assert other.lost_and_repeated(2) == (0, 0) and other.lost_and_repeated(4) == (2, 0)


def test_mixtures_of_images_have_the_mixtures_of_their_labels():
    torch.manual_seed(0)
    seen = []

    def model(image):
        seen.append(image)
        return torch.eye(2)[image[:, 0].round().long()] * 50  # sure of the nearer of two classes

    batch = {"image": torch.tensor([[0.0], [1.0]]), "label": torch.tensor([0, 1])}
    losses = [float(variants.mixed_labels(model, batch)) for _ in range(40)]
    shares = [min(float(image[0]), 1 - float(image[0])) for image in seen]
    # Sure and right but for the lesser share, which costs 50 a unit.
    assert losses == pytest.approx([50 * share for share in shares], abs=1e-3)
    assert max(shares) > 0.1
