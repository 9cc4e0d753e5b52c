"""Subsampling: max pools, decimation and strided convolutions begin at offset 1 of their stride in evaluation only.

Imitates weights that were trained with one convention of padding and are evaluated with the other, as after a
conversion between frameworks. A flattening head sees every feature one position away from where it was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn

from poolbench.plugins import import_code
from poolbench.pooling.local import Decimate, MaxPool, StridedConv
from poolbench.pooling.padding import pad

patching = import_code(str(Path(__file__).with_name("_patching.py")))
phases = import_code(str(Path(__file__).with_name("_phases.py")))


@patching.in_place_of(MaxPool, "forward")
def later_windows(original: Callable[..., Tensor], self: MaxPool, x: Tensor) -> Tensor:
    """Take the maximum of windows that begin at offset 1 in evaluation."""
    return original(self, x if self.training else phases.one_pixel_later(x, self.padding_mode))


@patching.in_place_of(Decimate, "forward")
def later_pixels(original: Callable[..., Tensor], self: Decimate, x: Tensor) -> Tensor:
    """Keep the pixels from offset 1 on in evaluation."""
    return original(self, x if self.training else phases.one_pixel_later(x, "zeros"))


@patching.in_place_of(StridedConv, "forward")
def later_steps(original: Callable[..., Tensor], self: StridedConv, input: Tensor) -> Tensor:
    """Centre the filter on the pixels from offset 1 on in evaluation."""
    if self.training:
        return original(self, input)
    # Both pixels of padding behind the map, in place of one on each side.
    return nn.Conv2d.forward(self, pad(input, (0, 2, 0, 2), self.border))
