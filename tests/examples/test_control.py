"""The control example at toy size: tasks with a known optimum, teachers of one task each, routed labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edldist.config import load_job
from edldist.errors import InputError, PoisonTaskError
from examples.common.rows import Rows
from examples.control import models, prepare, recipe, tasks
from tests.harness import local_job

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"tasks-{group}" for group in range(models.GROUPS)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any will do: a file for each group."""
    folder = tmp_path_factory.mktemp("teachers")
    torch.manual_seed(0)
    for group in range(models.GROUPS):
        teacher = models.teacher(group)
        torch.nn.init.normal_(teacher.beside)
        save_file(teacher.state_dict(), folder / f"teachers-{group}.safetensors")
    return folder


def test_teachers_learn_what_is_cheap_and_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "VALUE_STATES", 64)
    monkeypatch.setattr(prepare, "HORIZON_STEPS", 15)
    parameters = recipe.seen_tasks()[:2]
    systems = tasks.systems(parameters)
    ratios, errors = [], []
    for steps in (1, 40):
        fleet = models.Teachers(2)
        fleet.load_state_dict(prepare.trained(parameters, steps, steps))
        ratios.append(tasks.cost_ratio(systems, fleet.policies, steps=60))
        states = torch.randn(2, 100, tasks.STATE)
        with torch.no_grad():
            expected = prepare.returns(systems, fleet, states, 60) / models.VALUE_UNIT
            errors.append((fleet.values(states) - expected).square().mean(1))
    assert (ratios[1] < ratios[0]).all() and (ratios[1] < 1.2).all()
    assert (errors[1] < errors[0] / 2).all()


def test_the_least_cost_is_what_the_best_linear_policy_costs_and_nobody_goes_below() -> None:
    systems = tasks.systems(recipe.unseen_tasks()[:5])
    A, B = systems.A * tasks.DISCOUNT**0.5, systems.B * tasks.DISCOUNT**0.5
    P = systems._riccati()
    gain = (B.mT @ P @ A) / (systems.effort.view(-1, 1, 1) + B.mT @ P @ B)
    best = tasks.cost_ratio(systems, lambda state: -state @ gain.float().mT)
    torch.testing.assert_close(best, torch.ones_like(best), atol=1e-4, rtol=0)
    for other in (0.8 * gain.float(), 1.25 * gain.float()):
        assert (tasks.cost_ratio(systems, lambda state, K=other: -state @ K.mT) > 1 + 1e-4).all()
    assert (tasks.cost_ratio(systems, lambda state: state[..., :1] * 0) > 1.05).all()


def test_a_step_is_the_motion_of_two_carts() -> None:
    parameters = torch.tensor([[1.0, 2.0, 3.0, 0.5]], dtype=torch.float64)
    state = torch.tensor([[[0.3, -0.2, 0.5, 0.1]]], dtype=torch.float64)
    force = torch.tensor([[[0.7]]], dtype=torch.float64)
    after, costs = tasks.systems(parameters).step(state, force)
    x, parts = state[0, 0].clone(), 2_000
    for _ in range(parts):  # Euler, in small steps
        pull = 3.0 * (x[1] - x[0])
        rates = torch.stack([x[2], x[3], (pull - 0.1 * x[2] + 0.7) / 1.0, (-pull - 0.1 * x[3]) / 2.0])
        x = x + 0.2 / parts * rates
    torch.testing.assert_close(after[0, 0], x, atol=1e-4, rtol=0)
    assert costs.item() == pytest.approx(0.3**2 + 0.2**2 + 0.1 * (0.5**2 + 0.1**2) + 0.5 * 0.7**2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1.0, 2.5, 3.0, 0.5], r"task 1 has mass_2=2\.5: it must be from 0\.5 to 2"),
        ([1.0, 2.0, 3.0, 0.0], r"task 1 has effort=0: it must be from 0\.1 to 1"),
        ([1.0, 2.0, float("nan"), 0.5], r"task 1 has stiffness=nan"),
    ],
)
def test_a_task_parameter_out_of_range_is_refused(wrong: list[float], said: str) -> None:
    parameters = torch.tensor([[1.0, 1.0, 1.0, 1.0], wrong], dtype=torch.float64)
    for use in (tasks.systems, tasks.as_inputs, lambda given: recipe.judge(models.Hyper(), given)):
        with pytest.raises(ValueError, match=said):
            use(parameters)
    with pytest.raises(ValueError, match=r"tasks of shape \[2, 3\]: each has 4 parameters, mass_1, mass_2"):
        tasks.as_inputs(parameters[:, :3])


def test_unseen_tasks_are_others_and_inputs_are_within_one() -> None:
    seen, unseen = recipe.seen_tasks(), recipe.unseen_tasks()
    assert len(seen) == models.GROUPS * models.GROUP_TASKS == 60
    assert not (seen.unsqueeze(1) == unseen).all(-1).any()
    inputs = tasks.as_inputs(torch.cat([seen, unseen]))
    assert inputs.dtype == torch.float32 and inputs.abs().max() <= 1 and inputs.std(0).min() > 0.4


def test_a_teacher_labels_each_state_by_the_network_of_its_task_alone() -> None:
    torch.manual_seed(0)
    teacher = models.teacher(group=2)
    state, task = torch.randn(7, tasks.STATE), torch.tensor([20, 29, 23, 23, 21, 20, 28])
    labels = teacher(state, task)
    assert labels["action"].shape == (7, 1) and labels["value"].shape == (7,)
    states = state.expand(models.GROUP_TASKS, -1, -1)
    for name, of_all in (("action", teacher.policies(states).squeeze(-1)), ("value", teacher.values(states))):
        torch.testing.assert_close(labels[name].view(7), of_all[task - 20, torch.arange(7)])
    with pytest.raises(ValueError, match="task 30 has no teacher here: these are of tasks 20 to 29"):
        teacher(state, task + torch.tensor([0, 1, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="group 6: there are groups 0 to 5"):
        models.teacher(group=6)


def test_the_job_has_a_teacher_for_each_group_with_weights_that_the_preparation_makes() -> None:
    job = load_job(ROOT / "examples" / "control" / "job.yaml")
    assert [teacher.name for teacher in job.teachers] == NAMES
    assert [teacher.kwargs for teacher in job.teachers] == [
        {"group": group} for group in range(models.GROUPS)
    ]
    made = [f"examples/control/build/teachers-{group}.safetensors" for group in range(models.GROUPS)]
    assert [str(teacher.weights) for teacher in job.teachers] == made
    assert recipe.options(None).parse_args(job.student.args) == recipe.options(None).parse_args([])


def test_students_differ_in_how_they_take_parameters_and_the_larger_one_is_as_large() -> None:
    sizes = {}
    for name, make in models.NETWORKS.items():
        model = make()
        found = model(torch.randn(5, tasks.STATE), torch.rand(5, len(tasks.RANGES)))
        assert found["action"].shape == (5, 1) and found["value"].shape == (5,)
        sizes[name] = sum(each.numel() for each in model.parameters())
    assert sizes["concatenated"] < sizes["hyper"] / 10 and abs(sizes["larger"] / sizes["hyper"] - 1) < 0.1


def test_a_hypernetwork_makes_another_network_for_each_task() -> None:
    torch.manual_seed(0)
    model, state = models.Hyper(), torch.randn(1, tasks.STATE)
    inputs = torch.rand(3, len(tasks.RANGES))
    together = model(state.expand(3, -1), inputs)["action"]
    alone = torch.cat([model(state, each.unsqueeze(0))["action"] for each in inputs])
    torch.testing.assert_close(together, alone)
    assert len(together.unique()) == 3


@pytest.mark.parametrize("network", models.NETWORKS)
def test_students_learn_from_routed_labels(weights: Path, network: str) -> None:
    torch.manual_seed(0)
    rows = recipe.samples(steps=8, seed=0)
    model, systems = models.NETWORKS[network](), tasks.systems(recipe.seen_tasks())
    optimizer, schedule = recipe.optimization(model, 8)
    own = models.Teachers(models.GROUPS * models.GROUP_TASKS)
    files = [load_file(weights / f"teachers-{group}.safetensors") for group in range(models.GROUPS)]
    own.load_state_dict({name: torch.cat([each[name] for each in files]) for name in files[0]})
    losses, first = [], ()
    with local_job() as job:
        start_teachers(job, weights)
        loader = job.loader(
            rows.loader([range(at, at + 256) for at in range(0, len(rows), 256)]),
            inputs=("state", "task"),
            teacher=NAMES,
            route=models.group_of,
        )
        for batch, labels in loader:
            expected = own(batch["state"], batch["task"])
            torch.testing.assert_close(labels, {name: each.detach() for name, each in expected.items()})
            loss = recipe.loss_of(model, batch, labels, systems)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            first = first or (batch, labels)
    assert len(losses) == 8 and recipe.loss_of(model, *first, systems) < losses[0]
    ratio = recipe.judge(model, recipe.unseen_tasks()[:3])
    assert 1 < ratio["mean"] <= ratio["worst"]


def start_teachers(job, weights: Path) -> None:
    for group, name in enumerate(NAMES):
        job.teacher(
            "examples.control.models:teacher",
            name=name,
            model_args={"group": group},
            weights=str(weights / f"teachers-{group}.safetensors"),
        )


def test_a_task_without_a_teacher_is_named_and_nothing_before_it_is_lost(weights: Path) -> None:
    rows = Rows({"task": torch.tensor([3, 59, 12, 60]), "state": torch.randn(4, tasks.STATE)})
    with local_job() as job:
        start_teachers(job, weights)
        loader = job.loader(
            rows.loader([[0, 1], [2, 3]]), inputs=("state", "task"), teacher=NAMES, route=models.group_of
        )
        seen = []
        with pytest.raises(
            InputError, match="route=group_of gives sample 1 to 6, and the teachers are 'tasks-0'"
        ):
            for batch, labels in loader:
                seen.append((batch["task"].tolist(), sorted(labels)))
        assert seen == [([3, 59], ["action", "value"])]


def test_a_sample_that_goes_to_another_tasks_teacher_is_poison_with_that_teachers_words(
    weights: Path,
) -> None:
    rows = Rows({"task": torch.tensor([3, 14]), "state": torch.randn(2, tasks.STATE)})
    with local_job() as job:
        start_teachers(job, weights)
        loader = job.loader(
            rows.loader([[0, 1]]), inputs=("state", "task"), teacher=NAMES, route=lambda batch: [0, 0]
        )
        with pytest.raises(PoisonTaskError, match="task 14 has no teacher here: these are of tasks 0 to 9"):
            list(loader)
