"""Cells that differ only by seed: load, build, train, measure, each into its own record."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any

from poolbench.core import Benchmark, Cell, DataLocation, Measurement, MissingData, UsageError
from poolbench.registry import benchmarks
from poolbench.runner.environment import environment
from poolbench.runner.ledger import CellRecord, StorageError

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset
    from poolbench.engine.checkpoint import Checkpoint

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """What surrounds the cells of one invocation and does not change their results.

    A checkpoint is written at the first end of an epoch ``checkpoint_seconds`` after the last one (later
    where writing is slow), and at the end of training; with 0 seconds at the end of every epoch.
    """

    location: DataLocation
    device: str
    invocation: str = ""
    checkpoint_seconds: float = CHECKPOINT_SECONDS


@dataclass
class Attempt:
    """One cell on its way from its checkpoint, if it has one, to its result."""

    cell: Cell
    record: CellRecord
    checkpoint: Checkpoint | None
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    failed: bool = False

    @property
    def epoch(self) -> int:
        return self.checkpoint.epoch if self.checkpoint else 0

    def fail(self, error: Exception) -> None:
        """Write the failure down; one of the user's to mend has no traceback and is tried again by the next run."""
        self.failed = True
        if isinstance(error, UsageError):
            self.record.append("failed", reason=str(error), traceback="")
        else:
            trace = "".join(traceback.format_exception(error))
            self.record.append("failed", reason=f"{type(error).__name__}: {error}", traceback=trace)


def run_cell(cell: Cell, record: CellRecord, settings: Settings, on_epoch: Callable[[dict[str, float]], None]) -> None:
    """Execute one cell and write its outcome into its record: finished, failed or skipped."""
    run_cells([cell], [record], settings, lambda _, row: on_epoch(row))


def run_cells(
    cells: Sequence[Cell],
    records: Sequence[CellRecord],
    settings: Settings,
    on_epoch: Callable[[Cell, dict[str, float]], None],
) -> None:
    """Execute cells that differ only by seed; write each one's outcome into its own record.

    A cell with a checkpoint goes on from there. The failure of one cell does not stop the others. Whoever
    calls holds the records' locks. Raises StorageError for a folder that cannot be written.
    """
    benchmark = benchmarks.get(cells[0].benchmark)()
    attempts = [_open(cell, record, settings) for cell, record in zip(cells, records, strict=True)]
    began = time.perf_counter()
    try:
        data = benchmark.load(cells[0], settings.location, settings.device)
        data = data.for_tuning() if cells[0].split == "validation" else data
    except MissingData as missing:
        for record in records:
            record.append("skipped", reason=str(missing))
        return
    except UsageError as error:
        for attempt in attempts:
            attempt.fail(error)
        return
    loading = (time.perf_counter() - began) / len(cells)
    for attempt in attempts:
        try:
            model = _train(attempt, data, settings, on_epoch)
            measurement, facts, weights = _measure(benchmark, attempt, model, data)
            attempt.record.finish(measurement, {**facts, "seconds_load": loading}, weights)
        except StorageError:
            raise
        except Exception as error:
            attempt.fail(error)


def _open(cell: Cell, record: CellRecord, settings: Settings) -> Attempt:
    """Begin an attempt, or go on with the one whose checkpoint lies in the record."""
    from poolbench.engine.checkpoint import UnfitCheckpoint, unpack

    facts = {"invocation": settings.invocation, "environment": environment(settings.device)}
    content = record.checkpoint()
    if content is not None:
        try:
            checkpoint = unpack(content, cell.id, settings.device)
            record.resume(checkpoint.epoch, facts)
            return Attempt(cell, record, checkpoint, list(checkpoint.rows), checkpoint.seconds)
        except UnfitCheckpoint as unfit:
            facts["from_the_start"] = str(unfit)
    record.begin(cell, facts)
    return Attempt(cell, record, None)


def _train(
    attempt: Attempt, data: Dataset, settings: Settings, on_epoch: Callable[[Cell, dict[str, float]], None]
) -> nn.Module:
    """Return the cell's trained network; epochs and checkpoints go to its record."""
    from poolbench.engine import build_model
    from poolbench.engine.checkpoint import SHARE, Checkpoint, pack
    from poolbench.engine.fit import OneNetwork, Training, check_finite

    cell = attempt.cell
    model = build_model(cell, data, settings.device)
    training = Training(OneNetwork(model), data, cell.train, [cell.seed], masked=cell.data.get("mask") == "disc")
    if attempt.checkpoint:
        training.restore([attempt.checkpoint.state])
    earlier, began = attempt.seconds, time.perf_counter()
    written, pause = began, settings.checkpoint_seconds
    while training.epoch < cell.train.epochs:
        (row,) = training.run_epoch()
        check_finite(row)
        attempt.record.append("epoch", **row)
        attempt.rows.append(row)
        on_epoch(cell, row)
        now = time.perf_counter()
        attempt.seconds = earlier + now - began
        # At the end always: a failed measure must not cost the training.
        if training.epoch == cell.train.epochs or now - written >= pause:
            (state,) = training.states()
            attempt.record.save_checkpoint(
                pack(Checkpoint(state, attempt.rows, attempt.seconds), cell.id, settings.device)
            )
            written = time.perf_counter()
            pause = settings.checkpoint_seconds and max(settings.checkpoint_seconds, SHARE * (written - now))
    model.eval()
    return model


def _measure(
    benchmark: Benchmark, attempt: Attempt, model: nn.Module, data: Dataset
) -> tuple[Measurement, dict[str, Any], bytes]:
    """Return (measurement, facts, state dict as bytes) of a trained cell."""
    import torch

    from poolbench.measures.classification import has_learned

    cell, row = attempt.cell, attempt.rows[-1]
    began = time.perf_counter()
    # A tuning trial is judged by its validation accuracy alone.
    measured = (
        benchmark.measure(cell, model, data)
        if cell.split == "test"
        else Measurement({"accuracy": row["val_accuracy"], "loss": row["val_loss"]})
    )
    known = {metric.name for metric in benchmark.metrics}
    best = max(row["val_accuracy"] for row in attempt.rows)
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
        "seconds_fit": attempt.seconds,
        "seconds_measure": time.perf_counter() - began,
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
