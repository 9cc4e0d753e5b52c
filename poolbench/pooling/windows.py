"""Disjoint windows of stride x stride: what the window operators share.

An incomplete window at the right or bottom border is filled up by the padding mode; in mode "zeros" it
takes the values it has, as torch's pools do in ceil mode.
"""

from __future__ import annotations

from typing import Any

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


def slow_to_pool(x: Tensor) -> bool:
    """Return whether torch's max pooling of x (b, c, h, w) is slower than the maximum of slices: on a CPU, mostly.

    It looks for the winner's place, up to ten times the work of the maximum alone. That pays where a gradient
    will need the place and where it can go through many channels side by side.
    """
    return x.device.type == "cpu" and not (x.requires_grad and x.shape[1] >= 8 and x.stride(1) == 1)


class QuarterMax(torch.autograd.Function):
    """Maximum over disjoint 2x2 windows, (b, c, h, w) -> (b, c, h/2, w/2) for even sides, by slices.

    The gradient goes where max_pool2d sends it, to the first of equal values by rows.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        out = tangent[..., 1::2, 1::2]
        for i, j in ((1, 0), (0, 1), (0, 0)):
            out = torch.where(x[..., i::2, j::2] == largest, tangent[..., i::2, j::2], out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, largest = ctx.saved_tensors
        of_x = torch.empty_like(x)
        for i, j in ((0, 0), (0, 1), (1, 0)):
            own = gradient * (x[..., i::2, j::2] == largest)
            of_x[..., i::2, j::2] = own
            gradient = gradient - own
        of_x[..., 1::2, 1::2] = gradient
        return of_x


def window_max(x: Tensor, stride: int) -> Tensor:
    """(b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)): the largest of the values that are there."""
    if stride == 2 and x.shape[-2] % 2 == x.shape[-1] % 2 == 0 and slow_to_pool(x):
        out: Tensor = QuarterMax.apply(x)
        return out
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
