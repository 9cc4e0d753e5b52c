"""Anti-aliased pools: a low-pass filter before the stride (Zhang 2019)."""

from __future__ import annotations

from math import comb

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.padding import PaddingMode, pad
from poolbench.registry import pools


class BinomialBlur(nn.Module):
    """(b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)): binomial filter of odd size, then stride.

    Zhang 2019, "Making convolutional networks shift-invariant again". Padding "zeros" darkens the
    border, as the paper's zero padding does; the other modes keep a constant constant.
    """

    kernel: Tensor

    def __init__(self, channels: int, size: int, stride: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.channels, self.stride, self.padding_mode = channels, stride, padding_mode
        row = torch.tensor([comb(size - 1, i) for i in range(size)], dtype=torch.get_default_dtype())
        kernel = torch.outer(row, row) / 4 ** (size - 1)
        self.register_buffer("kernel", kernel.expand(channels, 1, size, size).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        reach = self.kernel.shape[-1] // 2
        padded = pad(x, (reach, reach, reach, reach), self.padding_mode)
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=self.stride, groups=self.channels)


class MaxBlur(nn.Module):
    """Maximum over 2x2 with stride 1, then blur with the stride: max pooling, anti-aliased (Zhang 2019)."""

    def __init__(self, channels: int, size: int, stride: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.padding_mode = padding_mode
        self.blur = BinomialBlur(channels, size, stride, padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        dense = F.max_pool2d(pad(x, (0, 1, 0, 1), self.padding_mode, -float("inf")), 2, stride=1)
        out: Tensor = self.blur(dense)
        return out


@pools.register("blur3", reference="Zhang 2019")
def blur3(channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> nn.Module:
    """Binomial 3x3 low-pass, then stride."""
    return BinomialBlur(channels, 3, stride, padding_mode)


@pools.register("max_blur3", reference="Zhang 2019")
def max_blur3(channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> nn.Module:
    """Dense 2x2 maximum, then binomial 3x3 low-pass with stride."""
    return MaxBlur(channels, 3, stride, padding_mode)
