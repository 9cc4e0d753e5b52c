"""Maximum, mean and median of a window, and controls: decimation, learned convolutions, no subsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.base import Pool
from poolbench.pooling.padding import PaddingMode, cover, pad
from poolbench.pooling.windows import complete, median, window_max, window_mean
from poolbench.registry import pools


@pools.register(
    "max",
    reference="Riesenhuber & Poggio 1999; Ranzato et al. 2007",
    shift_equivariant=False,
    learnable=False,
    random=False,
)
class MaxPool(Pool):
    """Maximum over windows of stride x stride."""

    sampling = "decimate"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return window_max(complete(x, self.stride, self.padding_mode), self.stride)


@pools.register("max3", reference="Krizhevsky et al. 2012", shift_equivariant=False, learnable=False, random=False)
class OverlappingMaxPool(Pool):
    """Maximum over overlapping 3x3 windows centred on every stride-th pixel."""

    sampling = "decimate"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(pad(x, (1, 1, 1, 1), self.padding_mode, -float("inf")), 3, self.stride)


@pools.register("avg", reference="LeCun et al. 1990", shift_equivariant=False, learnable=False, random=False)
class AvgPool(Pool):
    """Mean over windows of stride x stride. Mode "zeros" excludes the padding from the mean."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return window_mean(complete(x, self.stride, self.padding_mode), self.stride)


@pools.register("median", reference="Tukey 1977; control", shift_equivariant=False, learnable=False, random=False)
class MedianPool(Pool):
    """Median over windows of stride x stride; the mean of the middle two of an even number of values."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        # Padding of mode "zeros" is inf here: it sorts to the end, and the counts exclude it.
        windows = self._windows(pad(x, self._widths(x), self.padding_mode, float("inf")))
        present = torch.ones_like(x[:1, :1], dtype=torch.int64)
        counts = self._windows(pad(present, self._widths(x), self.padding_mode)).sum(-1)
        return median(windows, counts)

    def _widths(self, x: Tensor) -> tuple[int, int, int, int]:
        return cover(x.shape[-2:], self.stride, self.stride)

    def _windows(self, x: Tensor) -> Tensor:
        return x.unfold(2, self.stride, self.stride).unfold(3, self.stride, self.stride).flatten(-2)


@pools.register("decimate", reference="worst-case control", shift_equivariant=False, learnable=False, random=False)
class Decimate(Pool):
    """Every stride-th pixel without a filter. After a convolution it equals the strided convolution."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


@pools.register("dense", reference="upper bound of equivariance", shift_equivariant=True, learnable=False, random=False)
class Dilated(Pool):
    """No subsampling, (b, c, h, w) -> (b, c, h, w): networks dilate all later convolutions by ``stride`` instead."""

    keeps_size = True

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
class StridedConv(nn.Conv2d, Pool):
    """Learned 3x3 convolution with stride; adds 9 channels^2 weights and a bias per channel."""

    keeps_constants = False

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, channels, 3, stride=stride)
        # Not the convolution's own padding_mode, which fails on maps smaller than its padding.
        self.border: PaddingMode = padding_mode

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(pad(input, (1, 1, 1, 1), self.border))


@pools.register(
    "space_to_depth",
    reference="Sunkara & Luo 2022 (SPD-Conv); inverse of Shi et al. 2016",
    shift_equivariant=False,
    learnable=True,
    random=False,
)
class SpaceToDepth(Pool):
    """Lossless rearrangement of each window into channels, then a learned 1x1 convolution back to c channels.

    Equivalent to a convolution of size and stride ``stride``; adds channels^2 * stride^2 weights.
    """

    keeps_constants = False

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode
        self.conv = nn.Conv2d(channels * stride**2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad(x, cover(x.shape[-2:], self.stride, self.stride), self.padding_mode)
        out: Tensor = self.conv(F.pixel_unshuffle(padded, self.stride))
        return out
