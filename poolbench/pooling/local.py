"""Maximum, mean and median of a window, and the controls: decimation, convolutions, no subsampling at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.padding import PaddingMode, cover, pad
from poolbench.pooling.windows import complete, median, window_max, window_mean
from poolbench.registry import pools


@pools.register(
    "max", reference="LeCun et al. 1998; Ranzato et al. 2007", shift_equivariant=False, learnable=False, random=False
)
class MaxPool(nn.Module):
    """Maximum over windows of stride x stride."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return window_max(complete(x, self.stride, self.padding_mode), self.stride)


@pools.register("max3", reference="Krizhevsky et al. 2012", shift_equivariant=False, learnable=False, random=False)
class OverlappingMaxPool(nn.Module):
    """Maximum over overlapping 3x3 windows around every stride-th pixel."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad(x, (1, 1, 1, 1), self.padding_mode, -float("inf")), 3, self.stride)


@pools.register("avg", reference="LeCun et al. 1989", shift_equivariant=False, learnable=False, random=False)
class AvgPool(nn.Module):
    """Mean over windows of stride x stride; "zeros" leaves absent pixels out of the mean."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return window_mean(complete(x, self.stride, self.padding_mode), self.stride)


@pools.register("median", reference="Tukey 1977; control", shift_equivariant=False, learnable=False, random=False)
class MedianPool(nn.Module):
    """Median over windows of stride x stride; of an even number of values the mean of the middle two."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        # Absent pixels are sorted to the end and not counted.
        windows = self._windows(pad(x, self._widths(x), self.padding_mode, float("inf")))
        present = torch.ones_like(x[:1, :1], dtype=torch.int64)
        counts = self._windows(pad(present, self._widths(x), self.padding_mode)).sum(-1)
        return median(windows, counts)

    def _widths(self, x: Tensor) -> tuple[int, int, int, int]:
        return cover(x.shape[-2:], self.stride, self.stride)

    def _windows(self, x: Tensor) -> Tensor:
        return x.unfold(2, self.stride, self.stride).unfold(3, self.stride, self.stride).flatten(-2)


@pools.register("decimate", reference="worst-case control", shift_equivariant=False, learnable=False, random=False)
class Decimate(nn.Module):
    """Every stride-th pixel, unfiltered; behind a convolution it is exactly the strided convolution."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


@pools.register("dense", reference="upper bound of equivariance", shift_equivariant=True, learnable=False, random=False)
class Dense(nn.Module):
    """No subsampling: (b, c, h, w) -> the same; whoever builds the network dilates what follows by ``stride``."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x


@pools.register(
    "strided_conv",
    reference="Springenberg et al. 2015 (All-CNN)",
    shift_equivariant=False,
    learnable=True,
    random=False,
)
class StridedConv(nn.Conv2d):
    """Learned 3x3 convolution with stride in the place of pooling; adds channels^2 * 9 weights."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, channels, 3, stride=stride)
        # Not the convolution's own padding_mode, which fails on maps smaller than its padding.
        self.border: PaddingMode = padding_mode

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(pad(input, (1, 1, 1, 1), self.border))


@pools.register(
    "space_to_depth",
    reference="Shi et al. 2016 (pixel shuffle); Sajjadi et al. 2018",
    shift_equivariant=False,
    learnable=True,
    random=False,
)
class SpaceToDepth(nn.Module):
    """All pixels of a window become channels, a 1x1 convolution brings these back to c; loses nothing before it.

    As a function it is a convolution of size and stride ``stride``; adds channels^2 * stride^2 weights.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode
        self.conv = nn.Conv2d(channels * stride**2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, cover(x.shape[-2:], self.stride, self.stride), self.padding_mode)
        out: Tensor = self.conv(F.pixel_unshuffle(padded, self.stride))
        return out
