"""What tests share: one thread, a tiny benchmark with its cells and ledger, the command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from poolbench import registry
from poolbench.core import Cell, DataLocation, Measurement, Metric, MissingData, Result, TrainConfig
from poolbench.data import Dataset, Split, images_dataset
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import grid_cells
from poolbench.task import Benchmark, Grid, NoOptions

# Tests run beside each other and beside other work; a second thread only waits for the first.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("POOLBENCH_DATA", None)
torch.set_num_threads(1)

Poolbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def poolbench(tmp_path: Path) -> Poolbench:
    """Run the command line as a user does, in an empty folder; returns the finished process."""

    def run(*arguments: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "poolbench.cli", *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


class Log:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.epochs = 0
        self.results: list[Result] = []

    def cell_started(self, cell: Cell) -> None:
        self.started.append(cell.id)

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        self.epochs += 1

    def cell_ended(self, result: Result) -> None:
        self.results.append(result)


def load_tiny(cell: Cell, location: DataLocation, device: str) -> Dataset:
    if cell.variant == "absent":
        raise MissingData("tiny is not in data; --download fetches it")
    labels = torch.arange(40) % 2
    images = torch.zeros(40, 1, 12, 12, dtype=torch.uint8)
    images[labels == 1] = 200
    split = Split(images, labels)
    return images_dataset("tiny", ("black", "grey"), split, split, "made here")


def measure_tiny(cell: Cell, options: NoOptions, model: torch.nn.Module, data: Dataset) -> Measurement:
    if cell.variant == "broken":
        raise RuntimeError("broken on purpose")
    table = pd.DataFrame({"layer": ["a", "b"], "V": [0.5, 0.25]})
    metrics = {"accuracy": 1.0 - cell.seed / 100, "odd": float("nan")}
    return Measurement(metrics, {"layers": table}, {"map": torch.eye(3).numpy()})


def make_tiny() -> Benchmark:
    """Does it run?"""
    grid = Grid(
        datasets=("tiny",),
        architectures=("simple_conv",),
        pools=("max", "avg"),
        heads=("avg",),
        train=TrainConfig(epochs=2, batch_size=20),
        model={"width": 2, "hidden": 2},
    )
    return Benchmark(
        name="tiny",
        title="Tiny",
        question="Does it run?",
        protocol="Grey against black.",
        metrics=(
            Metric("accuracy", "accuracy", True, 0.01),
            Metric("odd", "odd"),
            Metric("train_loss", "training loss"),
        ),
        presets=dict.fromkeys(("smoke", "quick", "paper"), (grid,)),
        seeds=dict.fromkeys(("smoke", "quick", "paper"), 2),
        load=load_tiny,
        measure=measure_tiny,
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A registered benchmark whose cells train in milliseconds, with a data set of its own."""
    monkeypatch.setitem(registry.datasets._entries, "tiny", registry.Entry("tiny", load_tiny))
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", registry.Entry("tiny", make_tiny))
    return make_tiny()


@pytest.fixture
def cells(tiny: Benchmark) -> list[Cell]:
    """Its four cells: two pools by two seeds."""
    return [cell for grid in tiny.presets["quick"] for cell in grid_cells(tiny, grid, (0, 1))]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty work folder."""
    return Ledger(tmp_path / "out").create()


@pytest.fixture
def run_cells() -> Callable[..., Log]:
    """Execute cells into a ledger on the CPU and return what the listener heard."""

    def run(cells: list[Cell], ledger: Ledger, invocation: str = "") -> Log:
        log = Log()
        execute(cells, ledger, Settings(DataLocation("data"), "cpu", invocation), log)
        return log

    return run
