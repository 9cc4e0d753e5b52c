"""Power means of a window: the root mean square and GeM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import complete, spread, widen, window_max, window_mean
from poolbench.registry import pools


def root(x: Tensor) -> Tensor:
    """Square root with gradient 0 in place of infinity at 0."""
    positive = x > 0
    return torch.where(positive, x.where(positive, 1).sqrt(), 0)


@pools.register("l2", reference="Hyvärinen & Köster 2007", shift_equivariant=False, learnable=False, random=False)
class L2Pool(nn.Module):
    """Root mean square over windows of stride x stride (nn.LPPool2d takes the root of the sum)."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        squares = widen(complete(x, self.stride, self.padding_mode)).square()
        return root(window_mean(squares, self.stride)).to(x.dtype)


@pools.register("gem_local", reference="Radenovic et al. 2018", shift_equivariant=False, learnable=True, random=False)
class GemPool(nn.Module):
    """Generalised mean (mean x^p)^(1/p) over windows of stride x stride, one learned p for the layer, from 3.

    Inputs are clamped at ``eps`` from below, so it belongs behind a ReLU: of signed inputs it sees the
    positive part only. p = 1 is avg, large p is max.
    """

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "zeros",
        p: float = 3.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if p <= 0:
            raise UsageError(f"pool 'gem_local' needs a power p > 0, got {p}")
        self.stride, self.padding_mode, self.eps = stride, padding_mode, eps
        self.p = nn.Parameter(torch.tensor(float(p)))

    def forward(self, x: Tensor) -> Tensor:
        clamped = widen(complete(x, self.stride, self.padding_mode)).clamp(min=self.eps)
        # The result does not depend on the divisor; with the maximum (x / max)^p stays in [0, 1] for every p.
        top = window_max(clamped.detach(), self.stride)
        powers = (clamped / spread(top, self.stride, clamped)).pow(self.p)
        return (window_mean(powers, self.stride).pow(1 / self.p) * top).to(x.dtype)
