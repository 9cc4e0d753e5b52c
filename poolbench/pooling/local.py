"""Window operators: max, avg, decimation and the strided convolution."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.padding import PaddingMode, cover, pad
from poolbench.registry import pools


@pools.register("max", reference="LeCun et al. 1998; Ranzato et al. 2007")
class MaxPool(nn.Module):
    """Maximum over windows of stride x stride.

    An incomplete window at the border takes the values it has ("zeros" mode, as torch does), or is
    filled up by the padding mode.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        widths = cover(x.shape[-2:], self.stride, self.stride)
        return F.max_pool2d(pad(x, widths, self.padding_mode, -float("inf")), self.stride)


@pools.register("avg", reference="LeCun et al. 1989")
class AvgPool(nn.Module):
    """Mean over windows of stride x stride; "zeros" leaves absent pixels out of the mean."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        if self.padding_mode == "zeros":
            return F.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        return F.avg_pool2d(pad(x, cover(x.shape[-2:], self.stride, self.stride), self.padding_mode), self.stride)


@pools.register("decimate", reference="worst-case control")
class Decimate(nn.Module):
    """Every stride-th pixel, unfiltered; behind a convolution it is exactly the strided convolution."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


@pools.register("strided_conv", reference="Springenberg et al. 2015 (All-CNN)", learnable=True)
class StridedConv(nn.Conv2d):
    """Learned 3x3 convolution with stride in the place of pooling; adds channels^2 * 9 weights."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, channels, 3, stride=stride, padding=1, padding_mode=padding_mode)
