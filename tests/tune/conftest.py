"""A study whose cells are not trained: their accuracy is a formula of hyperparameters and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from pathlib import Path

import pytest

from poolbench.core import Cell, Result
from poolbench.tune.design import Budget, Design
from poolbench.tune.storage import open_storage
from poolbench.tune.study import Study, queue_again

MakeStudy = Callable[..., Study]


def quality(cell: Cell) -> float:
    """Return an accuracy that is best at a learning rate of 0.01 and differs a little between seeds."""
    return 0.9 - 0.1 * abs(log10(cell.train.learning_rate) + 2) + 0.001 * (cell.seed % 7)


class Runs:
    """Pretends to run cells; remembers them."""

    def __init__(self, accuracy: Callable[[Cell], float] = quality) -> None:
        self.seen: list[Cell] = []
        self.accuracy = accuracy

    def __call__(self, cells: Sequence[Cell]) -> list[Result]:
        self.seen += cells
        return [self.result(cell) for cell in cells]

    def result(self, cell: Cell) -> Result:
        metrics = {"accuracy": self.accuracy(cell), "cost_forward_ms": float(cell.train.batch_size)}
        return Result(cell, "finished", 0.0, 2.0, metrics=metrics, facts={"seconds_fit": 1.5, "seconds_measure": 0.5})


@pytest.fixture
def make_study(tmp_path: Path, cells: list[Cell]) -> MakeStudy:
    """Return the function that opens the study of the first group."""

    def make(trials: int, seconds: float | None = None, url: str | None = None, **design: object) -> Study:
        where = open_storage(tmp_path / "tuning", url, queue_again)
        return Study(tmp_path, cells[0], Design(**design), Budget(trials, seconds), where)  # type: ignore[arg-type]

    return make
