"""What only a GPU can show: equal samples and close results on both devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from poolbench.core import DataLocation
from poolbench.data.augment import rotate_all
from poolbench.data.shapes import sample_shapes
from poolbench.runner.cell import Settings
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_shapes_are_drawn_alike() -> None:
    on_cpu, on_gpu = (sample_shapes(100, 64, torch.Generator().manual_seed(0), device) for device in ("cpu", "cuda"))
    assert torch.equal(on_cpu[0], on_gpu[0].cpu())
    assert torch.equal(on_cpu[1], on_gpu[1].cpu())


def test_rotations_agree() -> None:
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(rotate_all(x.cuda(), 37.0).cpu(), rotate_all(x, 37.0), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["shift_robustness", "global_pooling", "rotation_variance"])
def test_a_cell_of_every_task_runs_and_agrees(name: str, tmp_path: Path, run_cells: Callable[..., Any]) -> None:
    cell = plan(Selection((name,), "smoke", seeds=(0,)))[-1]
    cell = replace(cell, train=replace(cell.train, epochs=1))
    results = []
    for device in ("cpu", "cuda"):
        ledger = Ledger(tmp_path / device).create()
        execute([cell], ledger, Settings(DataLocation("data"), device), run_cells([], ledger))
        results.append(ledger.result(cell))
    assert [result.status for result in results] == ["finished", "finished"], results[1].traceback
    assert results[0].facts["data"]["digest"] == results[1].facts["data"]["digest"]
    assert results[1].metrics["train_loss"] == pytest.approx(results[0].metrics["train_loss"], rel=0.02)
