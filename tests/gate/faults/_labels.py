"""Wrong training labels, for the faults that differ in their share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from poolbench.data.dataset import Split
from poolbench.data.shapes import CLASSES, ShapeStream
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))

Rendered = tuple[Tensor, Tensor]


def spoil_labels(share: float) -> None:
    """Give a share of all training images the label of another class, always the same images the same label."""

    @patching.in_place_of(Split, "render")
    def stored(original: Callable[..., Rendered], self: Split, rows: Tensor) -> Rendered:
        images, labels = original(self, rows)
        return images, _spoiled(labels, rows[:, 0], share, int(self.labels.max()) + 1)

    @patching.in_place_of(ShapeStream, "render")
    def drawn(original: Callable[..., Rendered], self: ShapeStream, rows: Tensor) -> Rendered:
        images, labels = original(self, rows)
        # Objects have no number; size and place stand for one.
        weights = torch.tensor([31 * 97 * 101, 97 * 101, 101, 1], device=rows.device)
        return images, _spoiled(labels, (rows[:, 1:] * weights).sum(dim=1), share, len(CLASSES))


def _spoiled(labels: Tensor, keys: Tensor, share: float, classes: int) -> Tensor:
    # A multiplicative hash by 2^32 over the golden ratio spreads the wrong ones evenly over all keys.
    hashed: Any = (keys + 1) * 2654435769 % 2**32
    other = (labels + 1 + hashed % (classes - 1)) % classes
    return torch.where(hashed < share * 2**32, other, labels)
