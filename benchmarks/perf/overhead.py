"""What the suite costs around the training: one cell with all that belongs to it against its training alone.

python benchmarks/perf/overhead.py [--seconds 60] [--repeats 2] [--json FILE]

Both train the same network on the same data for about ``--seconds``, in turns; the least of the repeats
counts. The full cell adds loading, measuring, ledger, checkpoints, MLflow with figures, and the report. What is
written during the training is timed where it is written: on a machine that does something else as well, two
trainings differ by far more. The last line is a second 'run all' on a folder where everything is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from poolbench.core import Cell, DataLocation
from poolbench.engine import build_model, fit
from poolbench.registry import benchmarks
from poolbench.runner.cell import Settings
from poolbench.runner.environment import environment, prepare_process
from poolbench.runner.execute import Silent, execute
from poolbench.runner.ledger import CellRecord, Ledger
from poolbench.runner.plan import Selection, plan
from poolbench_tracking.mlflow_sink import MlflowSink
from poolbench_tracking.report import write_report

LOCATION = DataLocation("data")


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def train_alone(cell: Cell) -> float:
    """Return the seconds that training takes, without loading its data."""
    data = benchmarks.get(cell.benchmark)().load(cell, LOCATION, "cpu")
    return seconds(lambda: fit(build_model(cell, data, "cpu"), data, cell.train, cell.seed))


@contextmanager
def timed_writes() -> Iterator[list[float]]:
    """Yield a list that gets the seconds of every event and checkpoint that is written meanwhile."""
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
    """Return the seconds of the parts of a cell that runs as 'poolbench run' runs it."""
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
    """Return the seconds of 'run all' where nothing is left to do."""
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "poolbench.cli", "run", "all", "--preset", "smoke", "--device", "cpu"]

        def run() -> None:
            subprocess.run(command, cwd=place, check=True, capture_output=True)

        run()
        return min(seconds(run) for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="how long the training should take")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    prepare_process()
    cell = plan(Selection(("global_pooling",), "quick", heads=("avg",), seeds=(0,)))[0]
    train_alone(replace(cell, train=replace(cell.train, epochs=1)))
    epoch = train_alone(replace(cell, train=replace(cell.train, epochs=3))) / 3
    cell = replace(cell, train=replace(cell.train, epochs=max(1, round(arguments.seconds / epoch))))
    alone, runs = [], []
    for _ in range(arguments.repeats):
        alone.append(train_alone(cell))
        runs.append(run_fully(cell))
    # The parts of the quickest training on either side: what else runs here disturbs long stretches most.
    fit_alone, full = min(alone), min(runs, key=lambda run: run["fit"])
    books = full["cell"] - full["load"] - full["fit"] - full["measure"]
    added = {
        "ledger: events and checkpoints": full["writes"],
        "ledger: the rest, with the cost of the network": books,
        "MLflow, with figures": full["mlflow"],
        "MLflow, summary of the invocation": full["summary"],
        "report": full["report"],
    }
    table = {
        "training alone": fit_alone,
        "training in the full cell": full["fit"],
        "loading the data": full["load"],
        "measuring the trained network": full["measure"],
        **added,
        "overhead: all but training, loading and measuring": sum(added.values()),
        "finished 'run all' (smoke preset)": run_all_twice(),
    }
    facts = environment("cpu")
    print(f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; {cell.train.epochs} epochs")
    for name, value in table.items():
        print(f"{name:<68}{value:>9.2f} s{value / fit_alone:>9.2%}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"environment": facts, "cell": cell.config(), "seconds": table}, indent=1))


if __name__ == "__main__":
    main()
