"""The rotation task on one small network: every table and metric, and what the controls must say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.groups import groups_of
from poolbench.core import Cell, DataLocation, Measurement, Result
from poolbench.data import load_dataset
from poolbench.engine import build_model
from poolbench.plots.scene import Scene
from poolbench.registry import benchmarks
from poolbench.runner.plan import Selection, plan


@pytest.fixture(scope="module")
def cell() -> Cell:
    return plan(Selection(("rotation_variance",), "smoke", seeds=(0,)))[0]


@pytest.fixture(scope="module")
def measured(cell: Cell) -> Measurement:
    """What is found in an untrained network; its weights come back as from a file."""
    benchmark = benchmarks.get("rotation_variance")()
    data = load_dataset(cell.dataset, DataLocation("data"), "cpu")
    state = build_model(cell, data, "cpu").state_dict()
    model = build_model(cell, data, "cpu")
    model.load_state_dict(state)
    return benchmark.measure(cell, benchmark.options(**cell.measure), model, data)


def test_every_metric_of_the_benchmark_is_measured(measured: Measurement) -> None:
    benchmark = benchmarks.get("rotation_variance")()
    assert set(measured.metrics) >= {metric.name for metric in benchmark.metrics}
    assert all(math.isfinite(measured.metrics[metric.name]) for metric in benchmark.metrics)


@dataclass(frozen=True)
class Record:
    """The tables of a measurement as if they had been stored."""

    measurement: Measurement

    def table(self, name: str) -> pd.DataFrame:
        if name not in self.measurement.tables:
            raise FileNotFoundError(name)
        return self.measurement.tables[name]

    def array(self, name: str) -> np.ndarray[Any, Any]:
        return self.measurement.arrays[name]


def test_every_figure_finds_what_it_draws(cell: Cell, measured: Measurement) -> None:
    """Line and image counts: every figure of a cell and of all has something in every panel."""
    benchmark = benchmarks.get("rotation_variance")()
    history = [{"epoch": 1, "val_accuracy": 0.5}]
    result = Result(cell, "finished", history=history, metrics=measured.metrics, facts={"learned": True})
    record = Record(measured)
    scene = Scene(benchmark.metrics, groups_of([result]), ["pool"], lambda _: record)
    for figure in benchmark.figures:
        pictures = [figure.draw_summary(scene)]
        if figure.draw_cell is not None:
            pictures.append(figure.draw_cell(result, record))
        for picture in pictures:
            assert picture is not None, figure.name
            assert all(axes.has_data() for axes in picture.axes), figure.name


def test_the_controls(measured: Measurement) -> None:
    assert measured.metrics["V_c4_quarters"] == 0
    layers = measured.tables["layers"]
    means = layers[layers["aggregation"] == "mean"]
    of = {name: rows.set_index("layer")["V"] for name, rows in means.groupby("network")}
    # This network is untrained itself: it and the control of random weights are the same.
    np.testing.assert_array_equal(of["trained"], of["random"])
    assert set(of) == {"trained", "random", "trained, protocol of 2019"}
    assert "log_softmax" in set(of["trained, protocol of 2019"].index)


def test_six_and_nine_count_apart_and_as_one(measured: Measurement) -> None:
    angles = measured.tables["angles"]
    assert set(angles["merged"]) == {True, False}
    assert set(angles["network"]) == {"trained", "c4"}
    key = ["network", "angle", "class"]
    apart, merged = (angles[angles["merged"] == flag].set_index(key)["accuracy"].sort_index() for flag in (False, True))
    assert (merged >= apart).all()
    assert (merged.xs("0", level="class") == apart.xs("0", level="class")).all()
