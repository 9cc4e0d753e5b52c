"""Padding: 3x3 convolutions pad with zeros where the cell says circular.

Imitates a padding mode that is not passed on. The pools still pad circularly. A circular shift of the image now
changes what the border does, so the network is not periodic and has no exact consistency.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from poolbench.architectures.blocks import Resolution
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(Resolution, "conv3x3")
def zero_padded(
    original: Callable[..., nn.Conv2d],
    self: Resolution,
    channels_in: int,
    channels_out: int,
    bias: bool = True,
    kind: type[nn.Conv2d] = nn.Conv2d,
) -> nn.Conv2d:
    """Build the convolution, then forget its circular padding."""
    convolution = original(self, channels_in, channels_out, bias, kind)
    if convolution.padding_mode == "circular":
        convolution.padding_mode = "zeros"
    return convolution
