"""Low-pass: the last tap of the binomial filter has the weight of its neighbour, [1, 2, 2] for [1, 2, 1].

Imitates a kernel that was typed by hand. The filter still sums to 1, so a constant map stays constant, but it no
longer removes the highest frequency: [1, 2, 2] / 5 keeps a fifth of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from poolbench.plugins import import_code
from poolbench.pooling.lowpass import BinomialBlur

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(BinomialBlur, "__init__")
def wrong_tap(
    original: Callable[..., None], self: BinomialBlur, channels: int, size: int, stride: int, padding_mode: str
) -> None:
    """Build the filter, then give its last tap the weight of the one before it."""
    original(self, channels, size, stride, padding_mode)
    if size > 1:
        row = self.kernel[0, 0].sum(dim=0)
        row[-1] = row[-2]
        row /= row.sum()
        self.kernel.copy_(torch.outer(row, row))
