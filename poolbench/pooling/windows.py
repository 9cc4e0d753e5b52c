"""Disjoint windows of stride x stride: what the window operators share.

An incomplete window at the right or bottom border is filled up by the padding mode; in mode "zeros" it
takes the values it has, as torch's pools do in ceil mode.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.pooling.padding import PaddingMode, cover, pad


def widen(x: Tensor) -> Tensor:
    """Return x in float32 or better: powers and exponentials leave the range of half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def complete(x: Tensor, stride: int, mode: PaddingMode) -> Tensor:
    """Return x (b, c, h, w) with its last windows filled up; as it is in mode "zeros"."""
    return x if mode == "zeros" else pad(x, cover(x.shape[-2:], stride, stride), mode)


def window_mean(x: Tensor, stride: int) -> Tensor:
    """(b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)): the mean of the values that are there."""
    return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)


def window_max(x: Tensor, stride: int) -> Tensor:
    """(b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)): the largest of the values that are there."""
    return F.max_pool2d(x, stride, ceil_mode=True)


def spread(values: Tensor, stride: int, x: Tensor) -> Tensor:
    """Give every pixel of x (b, c, h, w) the value of its window: (b, c, ceil(h/s), ceil(w/s)) -> (b, c, h, w)."""
    height, width = x.shape[-2:]
    return values.repeat_interleave(stride, -2)[..., :height, :].repeat_interleave(stride, -1)[..., :width]


def median(values: Tensor, counts: Tensor) -> Tensor:
    """Median over the last axis, (..., n) -> (...): of the ``counts`` smallest values, where the rest is inf.

    An even count gives the mean of the middle two (torch.median gives the lower of them).
    """
    ordered = values.sort(-1).values
    middle = torch.stack(((counts - 1) // 2, counts // 2), -1)
    return ordered.gather(-1, middle.expand(*ordered.shape[:-1], 2)).mean(-1)
