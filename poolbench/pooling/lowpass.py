"""Anti-aliased pools: a low-pass filter before the stride."""

from __future__ import annotations

from math import comb
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import UsageError
from poolbench.pooling.base import Pool
from poolbench.pooling.padding import PaddingMode, cover, pad, pad_filter
from poolbench.pooling.windows import complete, widen, window_mean
from poolbench.registry import pools


class BinomialBlur(Pool):
    """Binomial filter of odd ``size``, then stride (Zhang 2019); a constant map stays constant.

    The filter reflects at the border where the network pads with zeros (see ``pad_filter``).
    """

    kernel: Tensor

    def __init__(self, channels: int, size: int, stride: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.channels, self.stride, self.padding_mode = channels, stride, padding_mode
        row = torch.tensor([comb(size - 1, i) for i in range(size)], dtype=torch.get_default_dtype())
        kernel = torch.outer(row, row) / 4 ** (size - 1)
        self.register_buffer("kernel", kernel.expand(channels, 1, size, size).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_filter(x, self.kernel.shape[-1] // 2, self.padding_mode)
        return F.conv2d(padded, self.kernel.to(x.dtype), stride=self.stride, groups=self.channels)


class DenseMax(torch.autograd.Function):
    """Maximum over 2x2 with stride 1, (b, c, h, w) -> (b, c, h-1, w-1), from shifted slices.

    As in max_pool2d, the gradient goes to the first of equal values, in row-major order.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        rows = torch.maximum(x[..., :-1], x[..., 1:])
        return torch.maximum(rows[..., :-1, :], rows[..., 1:, :])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        rows = torch.maximum(x[..., :-1], x[..., 1:])
        of_rows = torch.where(x[..., 1:] > x[..., :-1], tangent[..., 1:], tangent[..., :-1])
        return torch.where(rows[..., 1:, :] > rows[..., :-1, :], of_rows[..., 1:, :], of_rows[..., :-1, :])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        rows = torch.maximum(x[..., :-1], x[..., 1:])
        below = gradient * (rows[..., 1:, :] > rows[..., :-1, :])
        of_rows = torch.zeros_like(rows)
        of_rows[..., :-1, :] = gradient - below
        of_rows[..., 1:, :] += below
        right = of_rows * (x[..., 1:] > x[..., :-1])
        of_x = torch.zeros_like(x)
        of_x[..., :-1] = of_rows - right
        of_x[..., 1:] += right
        return of_x


def dense_max(x: Tensor) -> Tensor:
    """Return the maximum over 2x2 with stride 1, (b, c, h, w) -> (b, c, h-1, w-1).

    On a CPU max_pool2d takes up to ten times as long as slices, as it also searches for the index of each maximum.
    It is faster only where a gradient needs the index and vectorisation runs over at least 8 channels.
    """
    if x.device.type == "cpu" and not (x.requires_grad and x.shape[1] >= 8 and x.stride(1) == 1):
        out: Tensor = DenseMax.apply(x)
        return out
    return F.max_pool2d(x, 2, stride=1)


def padded_dense_max(x: Tensor, padding_mode: PaddingMode) -> Tensor:
    """Return the maximum over 2x2 with stride 1, (b, c, h, w) -> (b, c, h, w), padded at the right and bottom.

    Mode "zeros" pads with -inf: the maximum is taken over the pixels that exist. Mode "circular" keeps circular
    shifts exact.
    """
    return dense_max(pad(x, (0, 1, 0, 1), padding_mode, -float("inf")))


class MaxBlur(Pool):
    """Anti-aliased max pooling: maximum over 2x2 with stride 1, then a binomial blur with the stride (Zhang 2019)."""

    def __init__(self, channels: int, size: int, stride: int, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.padding_mode = padding_mode
        self.blur = BinomialBlur(channels, size, stride, padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.blur(padded_dense_max(x, self.padding_mode))
        return out


@pools.register("blur3", reference="Zhang 2019", shift_equivariant=False, learnable=False, random=False)
class Blur3(BinomialBlur):
    """Binomial 3x3 low-pass, then stride."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, 3, stride, padding_mode)


@pools.register("blur5", reference="Zhang 2019", shift_equivariant=False, learnable=False, random=False)
class Blur5(BinomialBlur):
    """Binomial 5x5 low-pass, then stride."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, 5, stride, padding_mode)


@pools.register("blur7", reference="Zhang 2019", shift_equivariant=False, learnable=False, random=False)
class Blur7(BinomialBlur):
    """Binomial 7x7 low-pass, then stride."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, 7, stride, padding_mode)


@pools.register("max_blur3", reference="Zhang 2019", shift_equivariant=False, learnable=False, random=False)
class MaxBlur3(MaxBlur):
    """Maximum over 2x2 with stride 1, then binomial 3x3 low-pass with stride."""

    sampling = "blur3"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, 3, stride, padding_mode)


@pools.register("max_blur5", reference="Zhang 2019", shift_equivariant=False, learnable=False, random=False)
class MaxBlur5(MaxBlur):
    """Maximum over 2x2 with stride 1, then binomial 5x5 low-pass with stride."""

    sampling = "blur5"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, 5, stride, padding_mode)


@pools.register(
    "ideal_lowpass", reference="Grabinski et al. 2022 (FLC)", shift_equivariant=False, learnable=False, random=False
)
class IdealLowpass(Pool):
    """Crop the spectrum below the Nyquist frequency of the output grid: no aliasing, and the mean is kept.

    Output pixel j of n lies at input position j * h / n. The discrete Fourier transform treats the map as
    periodic for every ``padding_mode``. The Nyquist frequency itself is dropped, as shifts in opposite
    directions are indistinguishable there.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_below_nyquist(n, -(-n // self.stride), x.device) for n in x.shape[-2:])
        wide = widen(x)
        out: Tensor = (rows.to(wide.dtype) @ wide @ columns.to(wide.dtype).mT).to(x.dtype)
        return out


def _below_nyquist(size: int, wanted: int, device: torch.device) -> Tensor:
    """Return the matrix (wanted, size) that samples a periodic signal at j * size / wanted after an ideal low-pass.

    A matrix product and no Fourier transform: ONNX has no complex tensors.
    """
    times = torch.arange(wanted, dtype=torch.float64, device=device)[:, None] / wanted
    distance = times - torch.arange(size, dtype=torch.float64, device=device) / size
    frequencies = torch.arange(1, (wanted - 1) // 2 + 1, dtype=torch.float64, device=device)
    waves = torch.cos(2 * torch.pi * frequencies * distance[..., None]).sum(-1)
    return (1 + 2 * waves) / size


@pools.register(
    "dwt", reference="Haar 1910; Williams & Li 2018", shift_equivariant=False, learnable=False, random=False
)
class HaarLowBand(Pool):
    """Low-low band of the orthonormal Haar wavelet, stride * avg; a stride of 2^n gives n levels.

    Raises UsageError for a stride that is not a power of 2.
    """

    keeps_constants = False
    needs_power_of_two_stride = True

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        if stride < 1 or stride & (stride - 1):
            raise UsageError(f"pool 'dwt' halves maps: its stride is a power of 2, got {stride}; use 'avg' for others")
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return self.stride * window_mean(complete(x, self.stride, self.padding_mode), self.stride)


@pools.register("area", reference="antialiased resize", shift_equivariant=False, learnable=False, random=False)
class AreaPool(Pool):
    """Antialiased bilinear resize: a triangle filter of width 2 * stride.

    Mode "zeros" is torch's resize: the filter is truncated at the border and renormalised, and a side that is
    not a multiple of the stride is resized by its true ratio. The other modes pad the map first.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        height, width = (-(-n // self.stride) for n in x.shape[-2:])
        wide = widen(x)
        if self.padding_mode == "zeros":
            return F.interpolate(wide, (height, width), mode="bilinear", antialias=True).to(x.dtype)
        # One extra output on every side, cropped below, keeps the truncated filter out of the result.
        _, right, _, bottom = cover(x.shape[-2:], self.stride, self.stride)
        margin = self.stride
        padded = pad(wide, (margin, right + margin, margin, bottom + margin), self.padding_mode)
        out = F.interpolate(padded, (height + 2, width + 2), mode="bilinear", antialias=True)
        return out[..., 1:-1, 1:-1].to(x.dtype)
