"""One cell: load, build, fit, measure, into its record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from poolbench.core import Benchmark, Cell, DataLocation, Measurement, MissingData, UsageError
from poolbench.registry import benchmarks
from poolbench.runner.environment import environment
from poolbench.runner.ledger import CellRecord, StorageError

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset


@dataclass(frozen=True)
class Settings:
    """What surrounds the cells of one invocation and does not change their results."""

    location: DataLocation
    device: str
    invocation: str = ""


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
        # No traceback: the user's to mend, and tried again by the next run.
        record.append("failed", reason=str(error), traceback="")
        return
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
    metrics |= _cost(cell.group, model, data)
    weights = BytesIO()
    torch.save(model.state_dict(), weights)
    classes = len(data.classes)
    facts = {
        "data": {"name": data.name, "digest": data.digest, "source": data.source},
        "chance": 1 / classes,
        "learned": has_learned(metrics["accuracy"], classes, len(data.test)),
        "seconds_fit": fitted - began,
        "seconds_measure": time.perf_counter() - fitted,
    }
    return Measurement(metrics, measured.tables, measured.arrays), facts, weights.getvalue()


_costs: dict[str, dict[str, float]] = {}


def _cost(group: str, model: nn.Module, data: Dataset) -> dict[str, float]:
    """The network's cost on 16 test images; seeds do not change it, so a group is measured once per process."""
    if group not in _costs:
        from poolbench.engine.fit import to_pixels
        from poolbench.measures.cost import measure_cost

        _costs[group] = measure_cost(model, to_pixels(data.test.images[:16]), repeats=5).as_metrics()
    return _costs[group]
