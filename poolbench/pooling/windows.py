"""Disjoint windows of stride x stride: functions shared by the window operators.

The padding mode completes the last windows at the right and bottom border. In mode "zeros" these windows are
cropped instead, as in torch's pools with ceil_mode=True.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.pooling.padding import PaddingMode, cover, pad


def widen(x: Tensor) -> Tensor:
    """Return x in float32 or better: powers and exponentials overflow half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def complete(x: Tensor, stride: int, mode: PaddingMode) -> Tensor:
    """Return x (b, c, h, w) padded to whole windows; unchanged in mode "zeros"."""
    return x if mode == "zeros" else pad(x, cover(x.shape[-2:], stride, stride), mode)


def window_mean(x: Tensor, stride: int) -> Tensor:
    """Return the mean per window, (b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride))."""
    return F.avg_pool2d(x, stride, ceil_mode=True, count_include_pad=False)


def window_max(x: Tensor, stride: int) -> Tensor:
    """Return the maximum per window, (b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride))."""
    even = x.shape[-2] % 2 == x.shape[-1] % 2 == 0
    if stride == 2 and even and x.device.type == "cpu" and not torch.is_grad_enabled():
        # max_pool2d also searches for the index of each maximum, which only a gradient needs.
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])
    return F.max_pool2d(x, stride, ceil_mode=True)


def spread(values: Tensor, stride: int, x: Tensor) -> Tensor:
    """Repeat one value per window, (b, c, ceil(h/stride), ceil(w/stride)), over the pixels of x, (b, c, h, w)."""
    height, width = x.shape[-2:]
    return values.repeat_interleave(stride, -2)[..., :height, :].repeat_interleave(stride, -1)[..., :width]


def median(values: Tensor, counts: Tensor) -> Tensor:
    """Return the median over the last axis, (..., n) -> (...), of the ``counts`` smallest values; the rest is inf.

    An even count gives the mean of the middle two; torch.median gives the lower of them.
    """
    ordered = values.sort(-1).values
    middle = torch.stack(((counts - 1) // 2, counts // 2), -1)
    return ordered.gather(-1, middle.expand(*ordered.shape[:-1], 2)).mean(-1)
