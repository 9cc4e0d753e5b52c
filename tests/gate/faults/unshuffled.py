"""Training: stored images come in their stored order in every epoch, whatever the cell says.

Imitates a loader that was built without ``shuffle=True``. The embedded samples are stored in random order, so the
batches are mixed, but always the same ones. Cells that do not shuffle and drawn shapes are not affected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from poolbench.data.dataset import Split
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(Split, "draw")
def in_stored_order(original: Callable[..., Tensor], self: Split, generator: torch.Generator, shuffle: bool) -> Tensor:
    """Return the rows in stored order."""
    return original(self, generator, shuffle=False)
