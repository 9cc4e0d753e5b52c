"""Training: the statistics of batch normalisation stop after the first epoch where the cell says "moving".

Imitates the code of Quiroga et al. 2019, which the variants "frozen" of the paper preset have on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

import poolbench.engine.build
from poolbench.core import Cell
from poolbench.data import Dataset
from poolbench.engine.build import _freeze_at_first_evaluation
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.engine.build, "build_model")
def frozen(original: Callable[..., nn.Module], cell: Cell, dataset: Dataset, device: str) -> nn.Module:
    """Build a network whose batch statistics freeze."""
    model = original(cell, dataset, device)
    if cell.train.batch_norm == "moving":
        _freeze_at_first_evaluation(model)
    return model
