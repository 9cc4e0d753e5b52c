"""How long the projection into MLflow takes: a ledger of made-up cells is synced, then once more with nothing to do."""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from poolbench.core import COST_METRICS, Cell, Measurement
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench_tracking.mlflow_sink import MlflowSink

SEEDS = 8
EPOCHS = 10
CURVES = ("train_accuracy", "train_loss", "val_accuracy", "val_loss")


def made_up(count: int) -> Iterator[Cell]:
    """Yield ``count`` cells: those of the quick preset with 8 seeds, then again with other learning rates."""
    first = plan(Selection(("all",), "quick", seeds=tuple(range(SEEDS))))
    for index in range(count):
        repeat, position = divmod(index, len(first))
        cell = first[position]
        yield replace(cell, train=replace(cell.train, learning_rate=1e-3 * (1 + repeat)))


def fill(ledger: Ledger, cells: Iterable[Cell]) -> None:
    """Write cells that were never run as finished ones."""
    generator = np.random.default_rng(0)
    for cell in cells:
        write(ledger, cell, generator)


def write(ledger: Ledger, cell: Cell, generator: np.random.Generator, **facts: Any) -> None:
    """Write one cell with a history, all metrics of its task, a table with values per image, and ``facts``."""
    began = time.time()
    record = ledger.record(cell.id)
    record.begin(cell, {"environment": {"python": "3.11", "device": "cpu"}, "invocation": "made-up"})
    for epoch in range(1, EPOCHS + 1):
        values = {name: float(generator.random()) for name in CURVES}
        record.append("epoch", epoch=epoch, time=began + epoch, **values)
    metrics = (*benchmarks.get(cell.benchmark)().metrics, *COST_METRICS)
    numbers = {metric.name: float(generator.random()) + 0.01 for metric in metrics}
    correct = (generator.random(1000) < numbers["accuracy"]).astype("int32")
    numbers["accuracy"] = float(correct.mean())
    table = pd.DataFrame({"label": 0, "decision": 0, "correct": correct})
    record.finish(Measurement(numbers, {"answers": table}), {"chance": 0.1, "commonest": 0.5, **facts}, b"")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder)).create()
        began = time.perf_counter()
        fill(ledger, made_up(given.cells))
        print(f"{given.cells} cells made: {time.perf_counter() - began:.1f} s")
        for what in ("written", "nothing to do"):
            began = time.perf_counter()
            written = MlflowSink(ledger.folder).sync([ledger])
            print(f"{what}: {written} runs of seeds, {time.perf_counter() - began:.1f} s")
        with sqlite3.connect(ledger.folder / "mlflow.db") as database:
            (runs,) = database.execute("select count(*) from runs").fetchone()
        size = (ledger.folder / "mlflow.db").stat().st_size / 1e6
        print(f"{runs} runs, a database of {size:.0f} MB")


if __name__ == "__main__":
    main()
