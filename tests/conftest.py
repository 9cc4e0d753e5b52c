"""What tests share: one thread, a tiny benchmark with its cells and ledger, the command line as a process."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from poolbench import registry
from poolbench.core import Cell, Component, DataLocation, Measurement, Metric, MissingData, Result, TrainConfig
from poolbench.data import Dataset, Split, images_dataset
from poolbench.runner.attempt import Settings
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import grid_cells
from poolbench.task import Benchmark, Grid, NoOptions

if TYPE_CHECKING:
    from poolbench.plots.scene import Scene

# Tests run beside each other and beside other work; a second thread only waits for the first.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Ray reads these when it is first imported, by whichever test; a cluster and its drivers need the same token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("POOLBENCH_DATA", None)
torch.set_num_threads(1)

Poolbench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def poolbench(tmp_path: Path) -> Poolbench:
    """Run the command line as a user does, in an empty folder; returns the finished process."""

    def run(*arguments: str, timeout: float = 500, **environment: str) -> subprocess.CompletedProcess[str]:
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
    """A listener that records every callback."""

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


@pytest.fixture
def unseal() -> Callable[[CellRecord], None]:
    """Remove the checksums of a finished cell, as if a version without them had written it."""

    def remove(record: CellRecord) -> None:
        path = record.folder / "result.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in content.items() if key not in ("files", "sha256")}))

    return remove


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
        maps=("map", "absent"),
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
    """Execute cells into a ledger on the CPU and return the recorded callbacks."""

    def run(cells: list[Cell], ledger: Ledger, invocation: str = "") -> Log:
        log = Log()
        execute(cells, ledger, Settings(DataLocation("data"), "cpu", invocation), log)
        return log

    return run


def study_cell(pool: str = "max", seed: int = 0, **changes: Any) -> Cell:
    settings: dict[str, Any] = {
        "benchmark": "study", "dataset": "drawn", "architecture": "net", "pool": pool, "head": "avg",
        "variant": "default", "seed": seed, "train": TrainConfig(epochs=3), "model": {"width": 8},
    }  # fmt: skip
    settings |= changes
    given = {"pool": settings.pop("pool_options", {})}
    components = {name: Component(settings.pop(name), given.get(name, {})) for name in ("dataset", "pool", "head")}
    components["architecture"] = Component(settings.pop("architecture"), settings.pop("model"))
    return Cell(**components, **settings)


@pytest.fixture
def cell_of() -> Callable[..., Cell]:
    """Make a cell that nothing trains: ``cell_of(pool, seed, **fields)``."""
    return study_cell


class InMemory:
    """Results with tables and arrays that were never measured: what figures draw from, without a ledger."""

    def __init__(self) -> None:
        self.records: dict[str, InMemory.Record] = {}

    @dataclass(frozen=True)
    class Record:
        tables: Mapping[str, pd.DataFrame]
        arrays: Mapping[str, np.ndarray[Any, Any]]

        def table(self, name: str) -> pd.DataFrame:
            if name not in self.tables:
                raise FileNotFoundError(name)
            return self.tables[name]

        def array(self, name: str) -> np.ndarray[Any, Any]:
            return self.arrays[name]

    def __call__(
        self,
        pool: str,
        seed: int,
        accuracy: float,
        learned: bool = True,
        metrics: Mapping[str, float] | None = None,
        tables: Mapping[str, pd.DataFrame] | None = None,
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        **fields: Any,
    ) -> Result:
        """Return a finished result; epoch e of 3 has the validation accuracy ``accuracy * e / 3``."""
        cell = study_cell(pool, seed, **fields)
        history = [
            {"epoch": epoch, "train_accuracy": accuracy, "train_loss": 1.0, "val_accuracy": accuracy * epoch / 3,
             "val_loss": 1 - accuracy}
            for epoch in (1, 2, 3)
        ]  # fmt: skip
        self.records[cell.id] = self.Record(tables or {}, arrays or {})
        values = {"accuracy": accuracy, "loss": 1 - accuracy, **(metrics or {})}
        return Result(cell, "finished", history=history, metrics=values, facts={"learned": learned})

    def record(self, result: Result) -> Record:
        """Return the tables and arrays of a result."""
        return self.records[result.cell.id]

    def scene(self, results: Sequence[Result]) -> Scene:
        """Return the scene of a benchmark with these results and the metrics accuracy, loss and spread."""
        from poolbench.analysis.frames import results_frame, varying_fields
        from poolbench.analysis.groups import groups_of
        from poolbench.plots.scene import Scene

        metrics = (
            Metric("accuracy", "accuracy", True, 0.01),
            Metric("loss", "loss", False, 0.01),
            Metric("spread", "spread", False, 0.1, unit="logit"),
        )
        return Scene(metrics, groups_of(results), varying_fields(results_frame(results)), self.record)


@pytest.fixture
def made() -> InMemory:
    """Make results for figures by ``made(pool, seed, accuracy, ...)``, and their scene by ``made.scene(results)``."""
    return InMemory()
