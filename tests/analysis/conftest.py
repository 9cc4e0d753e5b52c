"""Results made in memory: analysis needs no ledger and no registered benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from poolbench.core import Cell, Result


@pytest.fixture
def finished(cell_of: Callable[..., Cell]) -> Callable[..., Result]:
    """Make a finished result: ``finished(pool, seed, accuracy, learned=..., metrics=..., **fields of the cell)``.

    It has the metrics accuracy and loss = 1 - accuracy, and those given.
    """

    def make(
        pool: str,
        seed: int,
        accuracy: float,
        learned: bool = True,
        metrics: Mapping[str, float] | None = None,
        **fields: Any,
    ) -> Result:
        values = {"accuracy": accuracy, "loss": 1 - accuracy, **(metrics or {})}
        return Result(cell_of(pool, seed, **fields), "finished", metrics=values, facts={"learned": learned})

    return make
