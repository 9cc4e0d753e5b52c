"""Results made in memory: analysis needs no ledger and no registered benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from poolbench.core import Cell, Component, Result, TrainConfig


def make_cell(pool: str = "max", seed: int = 0, **changes: Any) -> Cell:
    settings: dict[str, Any] = {
        "benchmark": "study", "dataset": "drawn", "architecture": "net", "pool": pool, "head": "avg",
        "variant": "default", "seed": seed, "train": TrainConfig(epochs=3), "model": {"width": 8},
    }  # fmt: skip
    settings |= changes
    components = {name: Component(settings.pop(name)) for name in ("dataset", "pool", "head")}
    components["architecture"] = Component(settings.pop("architecture"), settings.pop("model"))
    return Cell(**components, **settings)


@pytest.fixture
def finished() -> Callable[..., Result]:
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
        return Result(make_cell(pool, seed, **fields), "finished", metrics=values, facts={"learned": learned})

    return make
