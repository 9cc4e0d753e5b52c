"""Figures of the rotation task, one function each."""

from __future__ import annotations

from matplotlib.figure import Figure

from poolbench.core import Result
from poolbench.plots import bars, curves
from poolbench.plots.scene import Record, Scene
from poolbench_tasks.rotation_variance.figures import by_angle, by_depth, by_unit

NETWORK = ("dataset", "architecture")
TRAINING = (*NETWORK, "variant")
ALL_COLUMNS = ("TV", "SV", "V", "V_stratified")


def accuracy(scene: Scene) -> Figure | None:
    ticks = ("tested on\nplain", "tested on\nrotated")
    metrics = ("accuracy", "accuracy_rotated")
    return bars.metric_bars(scene, metrics, ticks, NETWORK, "variant", "accuracy", legend_text="trained on {}")


def angles(scene: Scene) -> Figure | None:
    return by_angle.accuracy(scene, NETWORK)


def angles_of_cell(result: Result, record: Record) -> Figure:
    return by_angle.accuracy_of_cell(record)


def layers_of_means(scene: Scene) -> Figure | None:
    return by_depth.curves(scene, NETWORK, "layers", "mean", ALL_COLUMNS)


def layers_of_means_of_cell(result: Result, record: Record) -> Figure:
    return by_depth.curves_of_cell(record, "layers", "mean", ALL_COLUMNS)


def layers_of_positions(scene: Scene) -> Figure | None:
    return by_depth.curves(scene, NETWORK, "layers", "none", ALL_COLUMNS)


def layers_of_positions_of_cell(result: Result, record: Record) -> Figure:
    return by_depth.curves_of_cell(record, "layers", "none", ALL_COLUMNS)


def layers_turned_back(scene: Scene) -> Figure | None:
    return by_depth.curves(scene, NETWORK, "layers", "none, turned back", ("TV", "SV", "V"))


def layers_turned_back_of_cell(result: Result, record: Record) -> Figure:
    return by_depth.curves_of_cell(record, "layers", "none, turned back", ("TV", "SV", "V"))


def units(scene: Scene) -> Figure | None:
    return by_unit.units(scene, TRAINING)


def units_of_cell(result: Result, record: Record) -> Figure:
    return by_unit.units_of_cell(record)


def classes(scene: Scene) -> Figure | None:
    return by_unit.classes(scene, TRAINING)


def classes_of_cell(result: Result, record: Record) -> Figure:
    return by_unit.classes_of_cell(record)


def lee(scene: Scene) -> Figure | None:
    return by_depth.curves(scene, NETWORK, "lee", "", ("LEE_relative",))


def lee_of_cell(result: Result, record: Record) -> Figure:
    return by_depth.curves_of_cell(record, "lee", "", ("LEE_relative",))


def cka(scene: Scene) -> Figure | None:
    return by_angle.similarity(scene, TRAINING)


def cka_of_cell(result: Result, record: Record) -> Figure:
    return by_angle.similarity_of_cell(record)


def learning_curves(scene: Scene) -> Figure | None:
    return curves.learning_curves(scene, ("val_accuracy",), NETWORK, "variant", "accuracy")
