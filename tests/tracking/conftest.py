"""Ledgers to track: one of a made-up benchmark that nothing trains, one of tiny trainings for MLflow."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import figure as drawing

from poolbench import registry
from poolbench.claim import Claim
from poolbench.core import Cell, Measurement, Metric, Result, TrainConfig
from poolbench.plots import curves, intervals, maps
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark, Figure, Grid

VARYING_TAGS = ("mlflow.parentRunId", "mlflow.user", "mlflow.artifactLocation")
LAYERS = ("net.conv1", "net.relu1", "net.conv2")


def _unused(*arguments: Any) -> Any:
    raise AssertionError("results come from the ledger, nothing is loaded or measured")


def draw_layers(tables: Sequence[pd.DataFrame]) -> drawing.Figure:
    """A figure that uses no primitive: V of the trained networks by layer."""
    figure = drawing.Figure()
    axes = figure.add_subplot()
    for table in tables:
        rows = table[(table["network"] == "trained") & (table["aggregation"] == "mean")]
        axes.plot(rows["depth"], rows["V"])
    return figure


def make_study() -> Benchmark:
    """Which pool?"""
    grid = Grid(("drawn",), ("net",), ("max", "avg", "blur"), ("avg",), TrainConfig(epochs=3), model={"width": 8})
    return Benchmark(
        name="study",
        title="A study",
        question="Which pool?",
        protocol="None of this was trained.",
        metrics=(
            Metric("accuracy", "accuracy", True, 0.01),
            Metric("loss", "loss", False, 0.01),
            Metric("spread", "spread", False, 0.1, unit="logit"),
            Metric("units", "units"),
            Metric("hidden", "not in the tables", True, headline=False),
        ),
        presets={"smoke": (), "quick": (grid,), "paper": ()},
        seeds={"smoke": 1, "quick": 3, "paper": 5},
        load=_unused,
        measure=_unused,
        claims=(
            Claim(
                "max_beats_avg",
                "Max is more accurate than <b>avg</b>.",
                "Somebody 2000 | a journal",
                "accuracy",
                better={"pool": "max"},
                worse={"pool": "avg"},
            ),
        ),
        figures=(
            Figure(
                "curves",
                "Accuracy",
                "Mean over <b>seeds</b>.",
                lambda scene: curves.learning_curves(scene, ("train_accuracy", "val_accuracy"), label="accuracy"),
            ),
            Figure("loss", "Loss", "", lambda scene: curves.learning_curves(scene, ("val_loss",), label="loss")),
            Figure(
                "map",
                "Map",
                "One network per group.",
                lambda scene: maps.map_panels(scene, "map", ("pool",), "P", lambda result: []),
                lambda result, record: maps.single_map(record.array("map"), "P"),
            ),
            Figure(
                "layers",
                "Layers",
                "V.",
                lambda scene: draw_layers([scene.record(group.results[0]).table("layers") for group in scene.groups]),
                lambda result, record: draw_layers([record.table("layers")]),
            ),
            Figure(
                "intervals",
                "Intervals",
                "Large: means.",
                lambda scene: intervals.metric_intervals(scene, ("accuracy", "loss"), ("variant",)),
            ),
        ),
    )


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """The registered benchmark "study", and the names that its cells use."""
    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", make_study))
    for entries, name in ((registry.datasets, "drawn"), (registry.architectures, "net"), (registry.pools, "blur")):
        monkeypatch.setitem(entries._entries, name, registry.Entry(name, None))
    return make_study()


@pytest.fixture
def store(ledger: Ledger, cell_of: Callable[..., Cell]) -> Callable[..., Result]:
    """Write a finished cell: ``store(pool, seed, accuracy, learned=..., facts=..., **fields)``; returns its result.

    Epoch e of 3 has the validation accuracy ``accuracy * e / 3``; the map is constant, V of layer k is
    ``0.1 k + accuracy`` for means and 9 for maxima. A network that has not learned decides the same for all images.
    """

    def write(
        pool: str,
        seed: int,
        accuracy: float,
        learned: bool = True,
        metrics: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
        tables: Mapping[str, pd.DataFrame] | None = None,
        arrays: Mapping[str, np.ndarray[Any, Any]] | None = None,
        **fields: Any,
    ) -> Result:
        cell = cell_of(pool, seed, **fields)
        record = ledger.record(cell.id)
        record.begin(cell, {"environment": {"python": "3.11", "device": "cpu"}, **(facts or {})})
        for epoch in (1, 2, 3):
            record.append(
                "epoch", epoch=epoch, train_accuracy=accuracy, train_loss=1.0, val_accuracy=accuracy * epoch / 3,
                val_loss=1 - accuracy,
            )  # fmt: skip
        rows = [
            {"depth": k, "layer": layer, "aggregation": kind, "network": network, "V": 0.1 * k + value}
            for network, of_means in (("trained", accuracy), ("random", 0.7))
            for kind, value in (("mean", of_means), ("max", 9.0))
            for k, layer in enumerate(LAYERS)
        ]
        measured = Measurement(
            {"accuracy": accuracy, "loss": 1 - accuracy, **(metrics or {})},
            {"layers": pd.DataFrame(rows), **(tables or {})},
            {"map": np.full((6, 8), accuracy, np.float32), **(arrays or {})},
        )
        data = {"name": "drawn", "digest": "0123456789abcdef", "source": "made here"}
        observed = {"data": data, "chance": 0.0, "commonest": 0.2 if learned else 1.0}
        record.finish(measured, {**observed, **(facts or {})}, b"")
        return ledger.result(cell)

    return write


@pytest.fixture
def store_all(store: Callable[..., Result]) -> Callable[[Mapping[str, Sequence[float]]], list[Result]]:
    """Write finished cells from {pool: accuracies of seeds 0, 1, ...}."""

    def write(accuracies: Mapping[str, Sequence[float]]) -> list[Result]:
        return [store(pool, seed, value) for pool, values in accuracies.items() for seed, value in enumerate(values)]

    return write


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow with its tables: making one takes seconds, copying it nothing."""
    from poolbench_tracking.mlflow_sink import MlflowSink

    folder = tmp_path_factory.mktemp("migrated")
    MlflowSink(folder)
    # One file, whatever is still in the write-ahead log.
    with sqlite3.connect(folder / "mlflow.db") as source, sqlite3.connect(folder / "copy.db") as copy:
        source.backup(copy)
    return folder / "copy.db"


@pytest.fixture
def filled(ledger: Ledger, cells: list[Cell], run_cells: Callable[..., Any], migrated: Path) -> Ledger:
    """Four finished cells and a failed one of one closed invocation, and an empty MLflow store."""
    shutil.copy(migrated, ledger.folder / "mlflow.db")
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    run_cells([*cells, replace(cells[0], variant="broken")], ledger, invocation.id)
    invocation.close("failed")
    return ledger


@pytest.fixture
def content_of() -> Callable[[str], list[Any]]:
    """Return all runs of the benchmark "tiny" and of its commands in a store, but for their ids, in a fixed order."""

    def content(uri: str) -> list[Any]:
        import mlflow

        client = mlflow.MlflowClient(tracking_uri=uri)
        ids = [found.experiment_id for name in ("tiny", "poolbench commands")
               if (found := client.get_experiment_by_name(name))]  # fmt: skip
        runs = {run.info.run_id: run for run in client.search_runs(ids)}

        def told(run: Any) -> tuple[Any, ...]:
            parent = runs.get(run.data.tags.get("mlflow.parentRunId", ""))
            files = sorted(item.path for item in client.list_artifacts(run.info.run_id))
            tags = {key: value for key, value in run.data.tags.items() if key not in VARYING_TAGS}
            info = (run.info.run_name, run.info.status, run.info.start_time, run.info.end_time)
            family = parent and parent.info.run_name
            return (*info, family, files, *(sorted(d.items()) for d in (run.data.params, run.data.metrics, tags)))

        return sorted(map(told, runs.values()), key=str)

    return content
