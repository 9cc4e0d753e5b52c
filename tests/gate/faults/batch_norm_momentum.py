"""Training: the running statistics of batch normalisation take 99 % of every new batch.

Imitates a momentum of 0.99 from TensorFlow, which counts it from the other end. Evaluation uses the statistics of the
last batch of the epoch, which may be small.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

import poolbench.engine.build
from poolbench.core import Cell
from poolbench.data import Dataset
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))

MOMENTUM = 0.99


@patching.in_place_of(poolbench.engine.build, "build_model")
def forgetful(original: Callable[..., nn.Module], cell: Cell, dataset: Dataset, device: str) -> nn.Module:
    """Build a network whose batch statistics forget all but the last batch."""
    model = original(cell, dataset, device)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = MOMENTUM
    return model
