"""Cells that differ only by seed: load, build, train, measure, each into its own record."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from poolbench.core import Cell, DataLocation, Measurement, MissingData, UsageError
from poolbench.registry import benchmarks
from poolbench.runner.environment import environment
from poolbench.runner.ledger import CellRecord, StorageError
from poolbench.task import Benchmark

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset
    from poolbench.engine.checkpoint import Checkpoint

T = TypeVar("T")

CHECKPOINT_SECONDS = 30.0
MOST_REPLICAS = 64


@dataclass(frozen=True)
class Settings:
    """What surrounds the cells of one invocation and is no part of their configuration.

    ``replicas``: up to so many cells that differ only by seed train as one (None: as many as fit on a GPU,
    one on a CPU, where stacking costs more than it saves); results stay the same up to rounding.
    ``deterministic``: a GPU takes kernels that give equal bits in every run, and a cell whose network has
    an operation without one fails; a CPU does so anyway. A checkpoint is written at the first end of an
    epoch ``checkpoint_seconds`` after the last one (later where writing is slow), and at the end of
    training; with 0 seconds at the end of every epoch.
    """

    location: DataLocation
    device: str
    invocation: str = ""
    replicas: int | None = None
    deterministic: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @property
    def most_replicas(self) -> int:
        """The number of cells beyond which a group of replicas is split in any case."""
        if self.replicas is None:
            return MOST_REPLICAS if self.device.startswith("cuda") else 1
        return self.replicas


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
        """Write down that the cell failed, and how."""
        self.failed = True
        trace = "".join(traceback.format_exception(error))
        self.record.append("failed", reason=f"{type(error).__name__}: {error}", traceback=trace)


def replica_groups(cells: Sequence[Cell], settings: Settings) -> list[Sequence[Cell]]:
    """Gather the cells that :func:`run_cells` may take together, in the order of the first of each group."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    return [part for group in groups.values() for part in _parts(group, settings.most_replicas)]


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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
    _prepare_process(settings)
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
        for record in records:
            # No traceback: the user's to mend, and tried again by the next run.
            record.append("failed", reason=str(error), traceback="")
        return
    loading = (time.perf_counter() - began) / len(cells)
    limit = _stack_limit(cells[0], data, settings) if min(len(cells), settings.most_replicas) > 1 else 1

    def run(attempts: Sequence[Attempt], limit: int) -> None:
        # A kill between two checkpoints leaves replicas at different epochs.
        for _, same in groupby(sorted(attempts, key=lambda attempt: attempt.epoch), lambda attempt: attempt.epoch):
            for together in _parts(list(same), limit):
                smaller = _train_and_measure(benchmark, together, data, settings, on_epoch, loading)
                if smaller:
                    run([_open(a.cell, a.record, settings) for a in together if not a.failed], smaller)

    run(attempts, limit)


def _prepare_process(settings: Settings) -> None:
    """Set what torch and the allocator keep per process, for the cells that follow."""
    import torch

    from poolbench.engine.allocator import keep_freed_memory

    if settings.device == "cpu":
        keep_freed_memory()
    if settings.deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = settings.deterministic
    torch.use_deterministic_algorithms(settings.deterministic)


def _stack_limit(cell: Cell, data: Dataset, settings: Settings) -> int:
    """Return how many replicas of the cell may train as one."""
    import torch

    from poolbench.engine import build_model
    from poolbench.engine.fit import to_pixels
    from poolbench.engine.replicas import stack_limit

    try:
        model = build_model(cell, data, settings.device)
        rows = data.train.draw(torch.Generator().manual_seed(0), shuffle=False)[: cell.train.batch_size]
        images, _ = data.train.render(rows.to(settings.device))
        return stack_limit(model, to_pixels(images), settings.most_replicas)
    except Exception:
        # Whatever it is, it will be said where each cell runs on its own.
        return 1


def _train_and_measure(
    benchmark: Benchmark,
    attempts: Sequence[Attempt],
    data: Dataset,
    settings: Settings,
    on_epoch: Callable[[Cell, dict[str, float]], None],
    loading: float,
) -> int:
    """Train replicas as one and finish each; return 0, or in groups of how many to try again what failed together."""
    import torch

    try:
        models = _train(attempts, data, settings, on_epoch)
    except StorageError:
        raise
    except Exception as error:
        if len(attempts) > 1:
            return len(attempts) // 2 if isinstance(error, torch.OutOfMemoryError) else 1
        attempts[0].fail(error)
        return 0
    for attempt, model in zip(attempts, models, strict=True):
        if attempt.failed:
            continue
        try:
            measurement, facts, weights = _measure(benchmark, attempt, model, data)
            facts |= {"seconds_load": loading, "replicas": len(attempts)}
            attempt.record.finish(measurement, facts, weights)
        except StorageError:
            raise
        except Exception as error:
            attempt.fail(error)
    return 0


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
    attempts: Sequence[Attempt],
    data: Dataset,
    settings: Settings,
    on_epoch: Callable[[Cell, dict[str, float]], None],
) -> list[nn.Module]:
    """Return the trained networks of attempts at the same epoch; epochs and checkpoints go to their records.

    One that diverges fails, and the others go on.
    """
    from poolbench.engine import build_model
    from poolbench.engine.checkpoint import SHARE, Checkpoint, pack
    from poolbench.engine.fit import Networks, OneNetwork, Training, TrainingDiverged, check_finite
    from poolbench.engine.replicas import Stack

    first = attempts[0].cell
    models = [build_model(attempt.cell, data, settings.device) for attempt in attempts]
    networks: Networks = OneNetwork(models[0]) if len(models) == 1 else Stack(models)
    seeds = [attempt.cell.seed for attempt in attempts]
    training = Training(networks, data, first.train, seeds, masked=first.data.get("mask") == "disc")
    if attempts[0].checkpoint:
        training.restore([attempt.checkpoint.state for attempt in attempts if attempt.checkpoint])
    earlier = [attempt.seconds for attempt in attempts]
    began = written = time.perf_counter()
    pause = settings.checkpoint_seconds
    while training.epoch < first.train.epochs and not all(attempt.failed for attempt in attempts):
        for attempt, row in zip(attempts, training.run_epoch(), strict=True):
            if attempt.failed:
                continue
            try:
                check_finite(row)
            except TrainingDiverged as diverged:
                attempt.fail(diverged)
                continue
            attempt.record.append("epoch", **row)
            attempt.rows.append(row)
            on_epoch(attempt.cell, row)
        now = time.perf_counter()
        for attempt, before in zip(attempts, earlier, strict=True):
            attempt.seconds = before + (now - began) / len(attempts)
        # At the end always: a failed measure must not cost the training.
        if training.epoch == first.train.epochs or now - written >= pause:
            for attempt, state in zip(attempts, training.states(), strict=True):
                if not attempt.failed:
                    content = pack(Checkpoint(state, attempt.rows, attempt.seconds), attempt.cell.id, settings.device)
                    attempt.record.save_checkpoint(content)
            written = time.perf_counter()
            pause = settings.checkpoint_seconds and max(settings.checkpoint_seconds, SHARE * (written - now))
    networks.close()
    return models


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
