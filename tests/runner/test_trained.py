"""What a finished cell left behind: its id, its data, its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import torch

from poolbench.core import Cell, DataLocation, UsageError
from poolbench.data import Split, load_dataset
from poolbench.data.folds import fold
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import grid_cells
from poolbench.runner.trained import cell_data, cell_weights, find_cell

NOWHERE = DataLocation("absent")


def test_a_cell_of_a_task_with_folds_has_the_data_of_its_own_fold() -> None:
    task = benchmarks.get("depth_ablation")()
    for cell in grid_cells(task, task.presets["smoke"][0], (0, 3)):
        found, expected = (
            cell_data(cell, NOWHERE, "cpu"), fold(load_dataset(cell.dataset, NOWHERE), task.folds, cell.seed)
        )  # fmt: skip
        assert torch.equal(found.test.images, expected.test.images)
        assert isinstance(found.train, Split)
        assert len(found.train) + len(found.test) == 1200


def test_a_trial_of_a_tuning_is_judged_on_validation_images(cells: list[Cell]) -> None:
    whole, part = (cell_data(replace(cells[0], split=split), NOWHERE, "cpu") for split in ("test", "validation"))
    assert len(part.train) + len(part.test) == len(whole.train)


@dataclass(frozen=True)
class Twin:
    """A cell whose id begins like that of another."""

    start: str

    @property
    def id(self) -> str:
        return f"{self.start}-twin"


def test_a_cell_is_found_by_the_start_of_its_id(
    cells: list[Cell], ledger: Ledger, run_cells: Callable[..., Any]
) -> None:
    run_cells(cells[:2], ledger)
    results = ledger.results()
    assert find_cell(results, cells[0].id[:6], ledger).cell == cells[0]
    twin = replace(results[1], cell=cast(Cell, Twin(cells[0].id[:6])))
    with pytest.raises(UsageError, match=rf"2 cells begin with '{cells[0].id[:6]}' \(.*give more characters of the id"):
        find_cell([*results, twin], cells[0].id[:6], ledger)
    with pytest.raises(UsageError, match="the id of a cell is empty"):
        find_cell(results, "", ledger)
    with pytest.raises(UsageError, match=r"has no cell 'xyz' \(it has 2 finished cells, like .*give the id of a cell"):
        find_cell(results, "xyz", ledger)
    with pytest.raises(UsageError, match=r"has no cell 'xyz' \(it has no finished cell\)"):
        find_cell([], "xyz", ledger)
    failed = replace(results[0], status="failed")
    with pytest.raises(UsageError, match="is failed, not finished; run its command again"):
        find_cell([failed], failed.cell.id, ledger)


def test_damaged_weights_are_told(cells: list[Cell], ledger: Ledger, run_cells: Callable[..., Any]) -> None:
    run_cells(cells[:1], ledger)
    record = ledger.record(cells[0].id)
    assert all(isinstance(value, torch.Tensor) for value in cell_weights(record).values())
    (record.folder / "weights.pt").write_bytes(b"PK damaged")
    with pytest.raises(
        UsageError, match=r"weights\.pt' is damaged: it has 10 bytes instead of .*poolbench doctor --fix"
    ):
        cell_weights(record)
