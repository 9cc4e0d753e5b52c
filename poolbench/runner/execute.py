"""Run cells one after another: load, build, fit, measure, into the ledger."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from filelock import Timeout

from poolbench.core import Benchmark, Cell, DataLocation, Measurement, MissingData, Result, UsageError
from poolbench.registry import benchmarks
from poolbench.runner.environment import environment
from poolbench.runner.ledger import CellRecord, Ledger, StorageError

if TYPE_CHECKING:
    from poolbench.data import Dataset


class Listener(Protocol):
    """Who wants to know how the execution goes."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


@dataclass(frozen=True)
class Settings:
    """What surrounds the cells of one invocation and does not change their results."""

    location: DataLocation
    device: str
    invocation: str = ""


def execute(cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
    """Execute the cells in order; every outcome is in the ledger when its ``cell_ended`` is called.

    A cell that another process is working on is left to it. A failed cell does not stop the others.
    Raises UsageError for damaged data and StorageError for a folder that cannot be written.
    """
    for cell in cells:
        record = ledger.record(cell.id)
        with_folder = ledger.folder / "cells" / cell.id
        try:
            with_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write to '{with_folder}': {error.strerror}") from error
        try:
            with record.lock.acquire(blocking=False):
                if ledger.result(cell).status != "finished":
                    listener.cell_started(cell)
                    run_cell(cell, record, settings, partial(listener.epoch_ended, cell))
        except Timeout:
            continue
        listener.cell_ended(ledger.result(cell))


def run_cell(cell: Cell, record: CellRecord, settings: Settings, on_epoch: Callable[[dict[str, float]], None]) -> None:
    """Execute one cell and write its outcome into its record: finished, failed or skipped."""
    benchmark = benchmarks.get(cell.benchmark)()
    record.begin(cell, {"invocation": settings.invocation, "environment": environment(settings.device)})
    began = time.perf_counter()
    try:
        data = benchmark.load(cell, settings.location, settings.device)
        data = data.for_tuning() if cell.split == "validation" else data
    except MissingData as missing:
        record.append("skipped", reason=str(missing))
        return
    except UsageError as error:
        record.append("failed", reason=str(error), traceback=traceback.format_exc())
        raise
    try:
        loaded = time.perf_counter()
        measurement, facts, weights = train_and_measure(benchmark, cell, data, settings.device, record, on_epoch)
        record.finish(measurement, {**facts, "seconds_load": loaded - began}, weights)
    except StorageError:
        raise
    except Exception as error:
        record.append("failed", reason=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def train_and_measure(
    benchmark: Benchmark,
    cell: Cell,
    data: Dataset,
    device: str,
    record: CellRecord,
    on_epoch: Callable[[dict[str, float]], None],
) -> tuple[Measurement, dict[str, Any], bytes]:
    """Return (measurement, facts, state dict as bytes) of one trained cell; epochs go to its record."""
    import torch

    from poolbench.engine import build_model, fit
    from poolbench.measures.classification import has_learned

    best = 0.0
    row: dict[str, float] = {}

    def keep(epoch: dict[str, float]) -> None:
        nonlocal best, row
        record.append("epoch", **epoch)
        best, row = max(best, epoch["val_accuracy"]), epoch
        on_epoch(epoch)

    model = build_model(cell, data, device)
    began = time.perf_counter()
    fit(model, data, cell.train, cell.seed, masked=cell.data.get("mask") == "disc", on_epoch=keep)
    fitted = time.perf_counter()
    # A tuning trial is judged by its validation accuracy alone.
    measured = (
        benchmark.measure(cell, model, data)
        if cell.split == "test"
        else Measurement({"accuracy": row["val_accuracy"], "loss": row["val_loss"]})
    )
    known = {metric.name for metric in benchmark.metrics}
    final = {**row, "best_accuracy": best, **measured.metrics}
    metrics = {name: value for name, value in final.items() if name in known}
    weights = BytesIO()
    torch.save(model.state_dict(), weights)
    classes = len(data.classes)
    facts = {
        "data": {"name": data.name, "digest": data.digest, "source": data.source},
        "parameters": sum(p.numel() for p in model.parameters()),
        "chance": 1 / classes,
        "learned": has_learned(metrics["accuracy"], classes, len(data.test)),
        "seconds_fit": fitted - began,
        "seconds_measure": time.perf_counter() - fitted,
    }
    return Measurement(metrics, measured.tables, measured.arrays), facts, weights.getvalue()
