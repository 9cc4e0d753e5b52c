"""Figures of the global pooling task."""

from __future__ import annotations

from matplotlib.figure import Figure

from poolbench.plots import curves, intervals
from poolbench.plots.scene import Scene


def accuracy_curves(scene: Scene) -> Figure | None:
    return curves.learning_curves(scene, ("train_accuracy", "val_accuracy"), ("variant",), "head", "accuracy")


def loss_curves(scene: Scene) -> Figure | None:
    return curves.learning_curves(scene, ("train_loss", "val_loss"), ("variant",), "head", "loss")


def accuracy(scene: Scene) -> Figure | None:
    return intervals.metric_intervals(scene, ("accuracy",), ("variant",), "head")
