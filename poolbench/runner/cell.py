"""Execute cells that differ only by seed: load the data, train, measure, record."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from poolbench.core import Cell, Measurement, MissingData, UsageError
from poolbench.files import StorageError
from poolbench.names import file_name
from poolbench.registry import benchmarks, closest
from poolbench.runner.attempt import Attempt, EpochLog, Settings, open_attempt
from poolbench.runner.pace import scouts_first
from poolbench.runner.record import Record
from poolbench.runner.trained import cell_data
from poolbench.task import Benchmark

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from poolbench.data import Dataset
    from poolbench.engine.loop import Training

T = TypeVar("T")


def replica_groups(cells: Sequence[Cell], settings: Settings) -> list[Sequence[Cell]]:
    """Return the cells in groups that :func:`run_cells` takes together, in the order of each group's first cell.

    Seeds that are folds have different data, so each is a group of its own. The first group of each kind of cells
    comes before all others (see :func:`poolbench.runner.pace.scouts_first`).
    """
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.group, []).append(cell)
    parts = [part for group in groups.values() for part in _parts(group, _most_together(group[0], settings))]
    return scouts_first(parts)


def _most_together(cell: Cell, settings: Settings) -> int:
    benchmark: Benchmark = benchmarks.get(cell.benchmark)()
    return 1 if benchmark.folds else settings.max_replicas


def _parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def run_cells(
    cells: Sequence[Cell],
    records: Sequence[Record],
    settings: Settings,
    on_epoch: Callable[[Cell, dict[str, float]], None],
) -> None:
    """Execute cells that differ only by seed; record the outcome of each: finished, failed or skipped.

    A cell with a checkpoint resumes from it. The failure of one cell does not stop the others. The caller holds the
    locks of the records. Raises StorageError for a folder that cannot be written.
    """
    from poolbench.engine.process import prepare_process

    prepare_process(settings.device, settings.deterministic)
    benchmark: Benchmark = benchmarks.get(cells[0].benchmark)()
    attempts = [open_attempt(cell, record, settings) for cell, record in zip(cells, records, strict=True)]
    began = time.perf_counter()
    data = _load(attempts, settings)
    if data is None:
        return
    load_seconds = (time.perf_counter() - began) / len(cells)
    waiting = deque(_batches(attempts, _stack_limit(cells[0], data, settings) if len(cells) > 1 else 1))
    while waiting:
        batch = waiting.popleft()
        try:
            training = _start(batch, data, settings)
            log = EpochLog(batch, settings, on_epoch)
            while training.epoch < training.config.epochs and not all(attempt.failed for attempt in batch):
                log.add(training, training.run_epoch())
            models = training.networks.close()
        except StorageError:
            raise
        except Exception as error:
            waiting.extendleft(reversed(_retries(batch, error, settings)))
            continue
        for attempt, model in zip(batch, models, strict=True):
            if not attempt.failed:
                _finish(benchmark, attempt, model, data, {"seconds_load": load_seconds, "replicas": len(batch)})


def _load(attempts: Sequence[Attempt], settings: Settings) -> Dataset | None:
    """Return the data set of the cells; record the reason and return None where there is none."""
    cell = attempts[0].cell
    try:
        return cell_data(cell, settings.location, settings.device)
    except MissingData as missing:
        for attempt in attempts:
            attempt.record.append("skipped", reason=str(missing) or type(missing).__name__)
    except UsageError as error:
        for attempt in attempts:
            # Without a traceback: an input error, which the next run tries again.
            attempt.record.append("failed", reason=str(error) or type(error).__name__, traceback="")
    return None


def _batches(attempts: Sequence[Attempt], limit: int) -> list[Sequence[Attempt]]:
    """Return the attempts in batches of at most ``limit`` that start at the same epoch.

    A kill between two checkpoints leaves replicas at different epochs.
    """
    ordered = sorted(attempts, key=lambda attempt: attempt.start_epoch)
    return [
        part for _, same in groupby(ordered, lambda attempt: attempt.start_epoch) for part in _parts(list(same), limit)
    ]


def _stack_limit(cell: Cell, data: Dataset, settings: Settings) -> int:
    """Return how many replicas of the cell may train as one stacked network."""
    import torch

    from poolbench.data import to_pixels
    from poolbench.engine import build_model
    from poolbench.engine.replicas import stack_limit

    try:
        model = build_model(cell, data, settings.device)
        rows = data.train.draw(torch.Generator().manual_seed(0), shuffle=False)[: cell.train.batch_size]
        images, _ = data.train.render(rows.to(settings.device))
        return stack_limit(model, to_pixels(images), settings.max_replicas)
    except Exception:
        # The same error is reported when each cell runs alone.
        return 1


def _start(attempts: Sequence[Attempt], data: Dataset, settings: Settings) -> Training:
    """Return the training of the cells' networks, restored where they have a checkpoint."""
    from poolbench import engine
    from poolbench.engine.loop import Training
    from poolbench.engine.networks import OneNetwork
    from poolbench.engine.replicas import Stack

    models = [engine.build_model(attempt.cell, data, settings.device) for attempt in attempts]
    networks = OneNetwork(models[0]) if len(models) == 1 else Stack(models)
    cell = attempts[0].cell
    config = cell.train
    if cell.split != "test":
        # The training images that are left without the validation images may be fewer.
        config = replace(config, train_images=min(config.train_images, len(data.train)))
    training = Training(networks, data, config, [attempt.cell.seed for attempt in attempts])
    if attempts[0].checkpoint:
        training.restore([attempt.checkpoint.state for attempt in attempts if attempt.checkpoint])
    return training


def _retries(attempts: Sequence[Attempt], error: Exception, settings: Settings) -> list[Sequence[Attempt]]:
    """Return smaller batches to try again after an error of the whole batch; a single attempt fails with it."""
    import torch

    if len(attempts) == 1:
        attempts[0].fail(error)
        return []
    size = len(attempts) // 2 if isinstance(error, torch.OutOfMemoryError) else 1
    again = [open_attempt(a.cell, a.record, settings) for a in attempts if not a.failed]
    return _batches(again, size)


def _finish(benchmark: Benchmark, attempt: Attempt, model: nn.Module, data: Dataset, facts: dict[str, Any]) -> None:
    """Measure a trained network and record the result, or the failure of the measure."""
    from poolbench.measures.classification import commonest_share

    try:
        began = time.perf_counter()
        measurement = _measure(benchmark, attempt, model, data)
        answers = _answers(attempt.cell, model, data)
        measurement = replace(measurement, tables={**measurement.tables, "answers": answers})
        facts |= {
            "data": {"name": data.name, "digest": data.digest, "source": data.source},
            "chance": 1 / len(data.classes),
            "commonest": commonest_share(answers["decision"].to_numpy()),
            "images": _image_counts(benchmark, measurement),
            "seconds_fit": attempt.seconds,
            "seconds_measure": time.perf_counter() - began,
        }
        attempt.record.finish(measurement, facts, _weights(model))
    except StorageError:
        raise
    except Exception as error:
        attempt.fail(error)


def _measure(benchmark: Benchmark, attempt: Attempt, model: nn.Module, data: Dataset) -> Measurement:
    """Return the metrics, tables and arrays of a trained cell; raise UsageError for undeclared or odd names."""
    cell, row = attempt.cell, attempt.rows[-1]
    declared = {metric.name for metric in benchmark.metrics}
    if cell.split != "validation":
        measured = benchmark.measure(cell, benchmark.options(**cell.measure), model, data)
    else:
        # A tuning for accuracy: the task's own measures take time that nobody needs.
        validated = {"accuracy": row["val_accuracy"], "loss": row["val_loss"]}
        measured = Measurement({name: value for name, value in validated.items() if name in declared})
    for name in measured.metrics:
        if name not in declared:
            # An error in the task's code, not in the user's input.
            raise ValueError(f"{closest('metric', name, declared)}: declare it in the metrics of {benchmark.name}")
    if "answers" in measured.tables:
        raise ValueError(f"table 'answers' belongs to the runner: rename the one that {benchmark.name} measures")
    best = max(row["val_accuracy"] for row in attempt.rows)
    metrics = {name: value for name, value in {**row, "best_accuracy": best}.items() if name in declared}
    metrics |= measured.metrics
    metrics |= _cost(model, data)
    for name in (*measured.tables, *measured.arrays):
        file_name(name, "the table or array")
    return Measurement(metrics, measured.tables, measured.arrays)


def _answers(cell: Cell, model: nn.Module, data: Dataset) -> pd.DataFrame:
    """Return one row per test image, masked as in training: label, decision, and whether it is correct (0 or 1)."""
    import pandas as pd

    from poolbench.engine.evaluation import split_logits
    from poolbench.measures.classification import predictions

    labels = data.test.labels
    # The batches of ``evaluate``: in others, rounding could flip a decision that the accuracy counts.
    decisions = predictions(split_logits(model, data.test, cell.train.mask))
    columns = {"label": labels, "decision": decisions, "correct": decisions == labels}
    return pd.DataFrame({name: values.cpu().numpy().astype("int32") for name, values in columns.items()})


def _image_counts(benchmark: Benchmark, measurement: Measurement) -> dict[str, int]:
    """Return {metric: number of images behind it} for metrics with values per image, and for other shares.

    The latter are assumed to be of all test images.
    """
    tables = {
        metric.name: metric.per_image.partition(".")[0] or "answers"
        for metric in benchmark.metrics
        if metric.per_image or metric.share
    }
    return {
        name: len(measurement.tables[table])
        for name, table in tables.items()
        if name in measurement.metrics and table in measurement.tables
    }


def _weights(model: nn.Module) -> bytes:
    """Return the state dict as bytes."""
    import torch

    content = BytesIO()
    torch.save(model.state_dict(), content)
    return content.getvalue()


def _cost(model: nn.Module, data: Dataset) -> dict[str, float]:
    """Return the network's cost on 16 test images.

    Seeds do not change it, but each measures its time anew: the shortest of several is robust against other work.
    """
    from poolbench.data import to_pixels
    from poolbench.measures.cost import measure_cost

    return measure_cost(model, to_pixels(data.test.images[:16]), repeats=3).as_metrics()
