"""Accuracy on all test images, and decisions under all circular shifts for some of them."""

from __future__ import annotations

import pandas as pd
from torch import nn

from poolbench.core import Cell, Measurement
from poolbench.data import Dataset, to_pixels
from poolbench.engine import evaluate
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench_tasks.training_budget import BudgetOptions


def measure(cell: Cell, options: BudgetOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracy and exact consistency; raise ``shift.NotPeriodic`` for a network that is not periodic.

    Table ``decisions`` has one row for each image that is measured under shifts, the same images in every cell.
    """
    loss, accuracy = evaluate(model, data.test, cell.train.mask)
    chosen = data.test.sample(options.images)
    pixels = to_pixels(chosen.images, cell.train.mask)
    logits = shift.period_of_logits(model, pixels, shift.total_stride(model, pixels[0]))
    found = shift.per_image(predictions(logits).flatten(0, 1), chosen.labels)
    columns = {
        "correct": (predictions(logits[0, 0]) == chosen.labels).double(),
        "consistency": found.consistency,
        "worst": found.worst,
        "mean_correct": found.mean_correct,
    }
    decisions = pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})
    metrics = {
        "accuracy": accuracy,
        "loss": loss,
        "subset_accuracy": float(decisions["correct"].mean()),
        "exact_consistency": float(decisions["consistency"].mean()),
        "worst_accuracy": float(decisions["worst"].mean()),
        "mean_shifted_accuracy": float(decisions["mean_correct"].mean()),
    }
    return Measurement(metrics, {"decisions": decisions})
