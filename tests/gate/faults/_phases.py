"""A map whose grid of stride 2 begins one pixel later, for the faults that differ in when they use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def one_pixel_later(x: Tensor, padding_mode: str) -> Tensor:
    """Return a map (b, c, h, w) without its first row and column; its size stays.

    With circular padding the first row becomes the last one, else the last one is repeated. A window of a maximum
    or every second pixel of a map of even size is the same as without that repetition.
    """
    if min(x.shape[-2:]) < 2:
        return x
    if padding_mode == "circular":
        return torch.roll(x, (-1, -1), dims=(-2, -1))
    return F.pad(x[..., 1:, 1:], (0, 1, 0, 1), mode="replicate")
