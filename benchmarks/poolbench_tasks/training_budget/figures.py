"""Figures of the training budget task: metrics, and the leads over max pooling, against the number of epochs."""

from __future__ import annotations

from matplotlib.figure import Figure

from poolbench.plots import curves
from poolbench.plots.scene import Scene

SIZE = ("train_images",)
REFERENCE = "max"


def accuracy(scene: Scene) -> Figure | None:
    return curves.metric_curves(scene, "accuracy", "epochs", SIZE)


def accuracy_lead(scene: Scene) -> Figure | None:
    return curves.lead_curves(scene, "accuracy", "epochs", REFERENCE, SIZE)


def consistency(scene: Scene) -> Figure | None:
    return curves.metric_curves(scene, "exact_consistency", "epochs", SIZE)


def consistency_lead(scene: Scene) -> Figure | None:
    return curves.lead_curves(scene, "exact_consistency", "epochs", REFERENCE, SIZE)
