"""Accuracy and loss of a trained network."""

from __future__ import annotations

from torch import nn

from poolbench.core import Cell, Measurement
from poolbench.data import Dataset
from poolbench.engine import evaluate
from poolbench.task import NoOptions


def measure(cell: Cell, options: NoOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracy and loss on the test images after the last epoch; the history holds every epoch's."""
    loss, accuracy = evaluate(model, data.test, cell.train.mask)
    return Measurement({"accuracy": accuracy, "loss": loss})
