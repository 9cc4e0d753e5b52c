"""The measure of the plugin's task."""

import torch
from torch import nn

from poolbench.core import Cell, Measurement
from poolbench.data import Dataset, to_pixels
from poolbench.recording import outputs
from poolbench_checkers import CheckersOptions


def measure(cell: Cell, options: CheckersOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return the accuracy, and the decisions by class (class, decision) as the array "confusion"."""
    images, labels = data.test.images[: options.images], data.test.labels[: options.images]
    decisions = outputs(model, to_pixels(images)).argmax(dim=1)
    confusion = torch.zeros(len(data.classes), len(data.classes), dtype=torch.int64)
    for label, decision in zip(labels.tolist(), decisions.tolist(), strict=True):
        confusion[label, decision] += 1
    accuracy = float((decisions == labels).float().mean())
    return Measurement({"accuracy": accuracy}, arrays={"confusion": confusion.numpy()})
