"""Low-pass: the filter pads with zeros at the border, where it should reflect.

Imitates the default padding of a convolution. A constant map fades at its border, to 9/16 in the corners.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

import poolbench.pooling.padding
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.pooling.padding, "pad_filter")
def dark_border(original: Callable[..., Tensor], x: Tensor, reach: int, mode: str) -> Tensor:
    """Pad with zeros in networks that pad with zeros."""
    if mode == "zeros":
        return F.pad(x, (reach, reach, reach, reach))
    return original(x, reach, mode)
