"""What MLflow runs contain: the run of one cell, and the parent run of one command."""

from __future__ import annotations

import json
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.analysis.frames import results_frame
from poolbench.core import Cell, Result
from poolbench.runner.ledger import CellRecord, Invocation, Ledger
from poolbench.task import Benchmark
from poolbench_tracking.mlflow_store import Store, milliseconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL, ATTEMPT, INVOCATION, CLOSED, FOLDER, LEARNED = (
    "poolbench.cell", "poolbench.attempt", "poolbench.invocation", "poolbench.closed", "poolbench.folder",
    "poolbench.learned",
)  # fmt: skip
BATCH_LIMIT = 1000  # metrics that MLflow accepts per call
LARGEST_CSV = 1_000_000  # bytes


def attempt_of(result: Result) -> str:
    """Return the tag value that identifies one attempt at a cell: when it ended."""
    return f"{result.ended:.6f}"


def learned_of(result: Result) -> str:
    """Return the tag value that says whether the network has learned; "" if it was not judged (a failed cell)."""
    return str(result.facts.get("learned", ""))


def create_cell_run(store: Store, benchmark: Benchmark, result: Result, parent: str | None) -> str:
    """Create the run of a cell with its tags, parameters, metrics and data set; return its id. It stays RUNNING."""
    # The experiment has the benchmark's name.
    name = result.cell.label.removeprefix(f"{benchmark.name} ")
    tags = _cell_tags(benchmark, result) | {FOLDER: store.folder_id}
    if parent:
        tags["mlflow.parentRunId"] = parent
    run = store.client.create_run(store.experiment(benchmark), milliseconds(result.started), tags, name)
    run_id: str = run.info.run_id
    metrics = _metrics(result)
    store.client.log_batch(run_id, metrics=metrics[:BATCH_LIMIT], params=_params(_settings(result.cell)))
    for start in range(BATCH_LIMIT, len(metrics), BATCH_LIMIT):
        store.client.log_batch(run_id, metrics=metrics[start : start + BATCH_LIMIT])
    if "data" in result.facts:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = result.facts["data"]
        entry = Dataset(data["name"], data["digest"][:36], "local", json.dumps({"source": data["source"]}))
        store.client.log_inputs(run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "training")])])
    return run_id


def log_cell_artifacts(store: Store, benchmark: Benchmark, record: CellRecord, result: Result, run_id: str) -> None:
    """Log what belongs to a cell as files: its traceback if it failed, else its figures, tables and final metrics."""
    from poolbench_tracking.figures import cell_figures

    with _artifacts(store, run_id) as folder:
        if result.traceback:
            (folder / "traceback.txt").write_text(result.traceback)
        if result.status == "finished":
            _write_figures(folder / "figures", lambda: cell_figures(benchmark, result, record))
            _write_tables(folder, record)
            rows = [f"{name},{value}" for name, value in result.metrics.items()]
            (folder / "metrics.csv").write_text("\n".join(["metric,value", *rows]) + "\n")


def create_parent_run(store: Store, benchmark: Benchmark, invocation: Invocation) -> str:
    """Create the parent run of the cells of one benchmark that one command executed; return its id."""
    content = invocation.content
    run = store.client.create_run(
        store.experiment(benchmark),
        start_time=milliseconds(content["started"]),
        run_name=f"{content['command']} ({invocation.id})",
        tags={
            INVOCATION: invocation.id,
            "mlflow.source.name": content["command"],
            "mlflow.note.content": "The cells that this command executed are its child runs.",
        },
    )
    run_id: str = run.info.run_id
    store.client.log_batch(run_id, params=_params({"preset": content["preset"]}))
    return run_id


def log_summary(store: Store, ledger: Ledger, benchmark: Benchmark, results: Sequence[Result], run_id: str) -> None:
    """Log the number of cells, their results as a table, and the figures over all of them in a parent run."""
    from mlflow.entities import Metric

    from poolbench_tracking.figures import summary_figures

    finished = [r for r in results if r.status == "finished" and r.cell.benchmark == benchmark.name]
    failed = [r for r in results if r.status == "failed" and r.cell.benchmark == benchmark.name]
    stamp = max((milliseconds(r.ended) or 0 for r in [*finished, *failed]), default=0)
    counts = {"cells_finished": len(finished), "cells_failed": len(failed)}
    store.client.log_batch(run_id, metrics=[Metric(key, float(n), stamp, 0) for key, n in counts.items()])
    with _artifacts(store, run_id) as folder:
        results_frame(finished).to_csv(folder / "results.csv", index=False)
        if finished:
            _write_figures(folder / "figures", lambda: summary_figures(benchmark, finished, ledger.record))


@contextmanager
def _artifacts(store: Store, run_id: str) -> Iterator[Path]:
    """Give a temporary folder; on success, log what it contains as the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        store.client.log_artifacts(run_id, folder)


def _write_figures(folder: Path, draw: Callable[[], Mapping[str, Figure]]) -> None:
    """Write figures as PNG. If drawing fails, write the traceback instead: the run is logged all the same."""
    from poolbench.plots.style import to_png

    folder.mkdir()
    try:
        for name, figure in draw().items():
            (folder / f"{name}.png").write_bytes(to_png(figure))
    except Exception:
        (folder / "failed.txt").write_text(traceback.format_exc())


def _write_tables(folder: Path, record: CellRecord) -> None:
    """Write the cell's tables as CSV, which the UI shows as tables; large ones stay Parquet."""
    for path in record.folder.glob("*.parquet"):
        content = record.table(path.stem).to_csv(index=False).encode()
        if len(content) <= LARGEST_CSV:
            (folder / f"{path.stem}.csv").write_bytes(content)
        else:
            (folder / path.name).write_bytes(path.read_bytes())


def _cell_tags(benchmark: Benchmark, result: Result) -> dict[str, str]:
    cell, facts = result.cell, result.facts
    environment = dict(facts.get("environment", {}))
    tags = {
        CELL: cell.id,
        ATTEMPT: attempt_of(result),
        "poolbench.group": cell.group,
        "poolbench.split": cell.split,
        LEARNED: learned_of(result),
        "mlflow.source.name": "poolbench",
        "mlflow.source.git.commit": environment.pop("git_commit", ""),
        "mlflow.note.content": f"{benchmark.question}\n\n`{cell.label}`",
        **{f"env.{key}": str(value) for key, value in environment.items()},
    }
    if result.reason:
        tags["poolbench.reason"] = result.reason[:1000]
    return tags


def _metrics(result: Result) -> list[Any]:
    """Return the finite per-epoch metrics with step and time, then the final metrics that have no epochs."""
    from mlflow.entities import Metric

    found, series = [], set()
    for row in result.history:
        for name, value in row.items():
            if name not in ("epoch", "time") and isfinite(value):
                series.add(name)
                found.append(Metric(name, value, int(row["time"] * 1000), int(row["epoch"])))
    end = milliseconds(result.ended) or 0
    facts = {name: result.facts[name] for name in ("seconds_fit", "seconds_measure") if name in result.facts}
    for name, value in {**result.metrics, **facts}.items():
        if name not in series and isfinite(value):
            found.append(Metric(name, float(value), end, len(result.history)))
    return found


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in values.items()]


def _settings(cell: Cell) -> dict[str, Any]:
    return {"seed": cell.seed, "split": cell.split, "version": cell.version, **cell.fields}
