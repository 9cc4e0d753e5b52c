"""Time the overhead of the suite: one complete cell against its training alone, on the CPU.

python benchmarks/perf/overhead.py [--seconds 60] [--repeats 2] [--json FILE]

Both sides train the same network on the same data for about ``--seconds`` and alternate; the fastest repeat
counts. The complete cell adds loading, measuring, ledger, checkpoints, MLflow with figures, and the report.
Writes during the training are timed one by one, because on a shared machine two trainings differ by more than
the overhead. The last line is a second 'run all' in a work folder where everything is finished.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from timing import environment_line, parser, positive, seconds, store

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from poolbench.core import Cell, DataLocation
from poolbench.data import load_dataset
from poolbench.engine import build_model, fit
from poolbench.engine.process import prepare_process
from poolbench.runner.attempt import Settings
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.environment import environment
from poolbench.runner.execute import Silent, execute
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench_tracking.mlflow_sink import MlflowSink
from poolbench_tracking.report import write_report

LOCATION = DataLocation("data")


def train_alone(cell: Cell) -> float:
    """Return the seconds of training, without loading the data."""
    data = load_dataset(cell.dataset, LOCATION, "cpu")
    return seconds(lambda: fit(build_model(cell, data, "cpu"), data, cell.train, cell.seed))


@contextmanager
def timed_writes() -> Iterator[list[float]]:
    """Yield a list to which the seconds of every event and checkpoint written in the block are appended."""
    spent: list[float] = []

    def timed(write: Callable[..., None]) -> Callable[..., None]:
        def wrapped(*arguments: Any, **keywords: Any) -> None:
            spent.append(seconds(lambda: write(*arguments, **keywords)))

        return wrapped

    append, save = CellRecord.append, CellRecord.save_checkpoint
    with (
        patch.object(CellRecord, "append", timed(append)),
        patch.object(CellRecord, "save_checkpoint", timed(save)),
    ):
        yield spent


def run_fully(cell: Cell) -> dict[str, float]:
    """Return the seconds of each part of a cell, executed as by 'poolbench run'."""
    with tempfile.TemporaryDirectory() as place:
        ledger = Ledger(Path(place)).create()
        sink = MlflowSink(ledger.folder)
        invocation = ledger.open_invocation("overhead", "quick")
        settings = Settings(LOCATION, "cpu", invocation.id)
        with timed_writes() as writes:
            parts = {"cell": seconds(lambda: execute([cell], ledger, settings, Silent()))}
        parts["writes"] = sum(writes)
        result = ledger.result(cell)
        assert result.status == "finished", result.reason
        parts |= {name: float(result.facts[f"seconds_{name}"]) for name in ("load", "fit", "measure")}
        parts["mlflow"] = seconds(lambda: sink.project(ledger, result, invocation))
        invocation.close("finished")
        parts["summary"] = seconds(lambda: sink.sync([ledger]))
        parts["report"] = seconds(lambda: write_report(ledger, ledger.folder / "report", sink.links()))
        return parts


def run_all_twice() -> float:
    """Return the seconds of 'run all' with nothing left to do."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "poolbench.cli", "run", "all", "--preset", "smoke", "--device", "cpu"]

        def run() -> None:
            subprocess.run(command, cwd=place, check=True, capture_output=True)

        run()
        return min(seconds(run) for _ in range(3))


def planned_cell(duration: float) -> Cell:
    """Return a cell of the quick preset with as many epochs as train for about ``duration`` seconds."""
    cell = plan(Selection(("global_pooling",), "quick", heads=("avg",), seeds=(0,)))[0]
    train_alone(replace(cell, train=replace(cell.train, epochs=1)))
    epoch = train_alone(replace(cell, train=replace(cell.train, epochs=3))) / 3
    return replace(cell, train=replace(cell.train, epochs=max(1, round(duration / epoch))))


def as_table(alone: float, full: dict[str, float]) -> dict[str, float]:
    """Return the seconds by part, the sum of the overhead and a finished 'run all'."""
    added = {
        "ledger: events and checkpoints": full["writes"],
        "ledger: the rest, with the cost of the network": full["cell"] - full["load"] - full["fit"] - full["measure"],
        "MLflow, with figures": full["mlflow"],
        "MLflow, summary of the invocation": full["summary"],
        "report": full["report"],
    }
    return {
        "training alone": alone,
        "training in the complete cell": full["fit"],
        "loading the data": full["load"],
        "measuring the trained network": full["measure"],
        **added,
        "overhead: all but training, loading and measuring": sum(added.values()),
        "finished 'run all' (smoke preset)": run_all_twice(),
    }


def main() -> None:
    """Print the parts of a complete cell in seconds and relative to its training."""
    options = parser(__doc__, device=False)
    options.add_argument("--seconds", type=float, default=60, help="duration of the training (default: 60)")
    options.add_argument("--repeats", type=positive, default=2, help="runs of each; the fastest counts (default: 2)")
    arguments = options.parse_args()
    prepare_process("cpu")
    cell = planned_cell(arguments.seconds)
    alone, runs = [], []
    for _ in range(arguments.repeats):
        alone.append(train_alone(cell))
        runs.append(run_fully(cell))
    # The run with the fastest training: long parts suffer most from other load on the machine.
    table = as_table(min(alone), min(runs, key=lambda run: run["fit"]))
    print(f"{environment_line(environment('cpu'))}; {cell.train.epochs} epochs")
    for name, value in table.items():
        print(f"{name:<68}{value:>9.2f} s{value / min(alone):>9.2%}")
    store(arguments.json, "cpu", {"cell": cell.config(), "seconds": table})


if __name__ == "__main__":
    main()
