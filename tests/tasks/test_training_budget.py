"""The budget task: decisions under shifts against a loop, presets whose cells differ in nothing but the budget."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from poolbench.analysis.claims import judge
from poolbench.analysis.frames import results_frame
from poolbench.analysis.learning import judged
from poolbench.core import Cell, DataLocation, Measurement, Result, TrainConfig
from poolbench.data import load_dataset, to_pixels
from poolbench.engine import build_model
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench.registry import benchmarks
from poolbench.runner.plan import grid_cells
from poolbench_tasks.training_budget import BudgetOptions
from poolbench_tasks.training_budget.figures import accuracy_lead
from poolbench_tasks.training_budget.measure import measure


def cells(preset: str, seeds: Sequence[int] = (0,)) -> list[Cell]:
    task = benchmarks.get("training_budget")()
    return [cell for grid in task.presets[preset] for cell in grid_cells(task, grid, seeds)]


def measured(cell: Cell, count: int) -> tuple[Measurement, torch.nn.Module, Any]:
    data = load_dataset(cell.dataset, DataLocation("absent"))
    torch.manual_seed(0)
    model = build_model(cell, data, "cpu").eval()
    return measure(cell, BudgetOptions(count), model, data), model, data


@pytest.mark.parametrize("pool", ["max", "max_aps"])
def test_decisions_are_those_of_a_loop_over_all_shifts(pool: str) -> None:
    cell = next(cell for cell in cells("smoke") if cell.pool.name == pool)
    found, model, data = measured(cell, 6)
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:6]
    pixels, labels = to_pixels(data.test.images[order]), data.test.labels[order]
    with torch.no_grad():
        every = [
            predictions(model(torch.roll(pixels, shift, dims=(-2, -1)))).tolist()
            for shift in itertools.product(range(32), repeat=2)
        ]
    table = found.tables["decisions"]
    for index, label in enumerate(labels.tolist()):
        votes = [row[index] for row in every]
        shares = [votes.count(each) / len(votes) for each in set(votes)]
        assert table["correct"][index] == (votes[0] == label)  # the first shift is none
        assert table["consistency"][index] == pytest.approx(sum(share**2 for share in shares))
        assert table["worst"][index] == (set(votes) == {label})
        assert table["mean_correct"][index] == pytest.approx(votes.count(label) / len(votes))
    assert found.metrics["exact_consistency"] == pytest.approx(table["consistency"].mean())
    assert found.metrics["subset_accuracy"] == table["correct"].mean()
    assert found.metrics["worst_accuracy"] == table["worst"].mean()


def test_a_network_that_is_not_periodic_is_refused() -> None:
    cell = next(cell for cell in cells("smoke") if cell.pool.name == "max")
    with pytest.raises(shift.NotPeriodic):
        measured(replace(cell, padding_mode="zeros"), 6)


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_cells_of_a_data_set_differ_only_by_pool_budget_and_seed(preset: str) -> None:
    for name in {cell.dataset.name for cell in cells(preset)}:
        rest = set()
        for cell in (cell for cell in cells(preset, (0, 1)) if cell.dataset.name == name):
            fields = {k: v for k, v in cell.fields.items() if k not in ("pool", "epochs", "train_images")}
            rest.add(tuple(fields.items()))
        assert len(rest) == 1


def test_every_claim_has_its_cells_in_a_preset() -> None:
    task = benchmarks.get("training_budget")()
    found = [cell.fields for preset in ("quick", "paper") for cell in cells(preset)]
    for claim in task.claims:
        for condition in filter(None, (claim.where, claim.than)):
            for side in (claim.better, claim.worse):
                wanted = {**condition, **side}
                assert any(all(fields[name] == value for name, value in wanted.items()) for fields in found), claim


def test_claims_whose_networks_have_not_learned_are_told_and_not_hidden() -> None:
    task = benchmarks.get("training_budget")()
    accuracies = {(2, 0): 0.75, (2, 1): 0.75, (8, 0): 0.8, (8, 1): 0.1}
    results = [
        Result(
            cell,
            "finished",
            metrics={"accuracy": accuracies[cell.train.epochs, cell.seed], "exact_consistency": 0.5},
            facts={"chance": 0.1},
        )
        for cell in cells("quick", (0, 1))
    ]
    frame = results_frame(judged(results))
    verdict = judge(task.claims[0], task.name, task.metrics, frame)
    assert (verdict.ruling, verdict.effect) == ("undecided", None)
    assert verdict.networks == 8
    assert "left out because not learned: 2 of 8 networks" in verdict.note


def test_the_figure_shows_where_the_lead_changes_its_sign(made: Any) -> None:
    leads = {2: -0.03, 8: 0.01, 24: 0.02}
    results = [
        made(pool, seed, 0.8 + 0.01 * seed + lead * (pool == "blur"), train=TrainConfig(epochs=epochs))
        for pool in ("max", "blur")
        for seed in range(3)
        for epochs, lead in leads.items()
    ]
    figure = accuracy_lead(made.scene(results))
    assert figure is not None
    line, zero = figure.axes[0].get_lines()
    assert list(line.get_xdata()) == [2, 8, 24]  # type: ignore[arg-type]
    assert list(line.get_ydata()) == pytest.approx([-0.03, 0.01, 0.02])  # type: ignore[arg-type]
    assert list(zero.get_ydata()) == [0, 0]  # type: ignore[arg-type]
