"""Power means of a window: root mean square and GeM."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.base import Pool, Tunable
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import complete, spread, widen, window_max, window_mean
from poolbench.registry import pools
from poolbench.search import Interval


def root(x: Tensor) -> Tensor:
    """Return the square root of x; its gradient at 0 is 0 instead of infinity."""
    positive = x > 0
    return torch.where(positive, x.where(positive, 1).sqrt(), 0)


@pools.register("l2", reference="Hyvärinen & Köster 2007", shift_equivariant=False, learnable=False, random=False)
class L2Pool(Pool):
    """Root mean square over windows of stride x stride (nn.LPPool2d gives the root of the sum)."""

    signed = False

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        squares = widen(complete(x, self.stride, self.padding_mode)).square()
        return root(window_mean(squares, self.stride)).to(x.dtype)


@pools.register("gem_local", reference="Radenovic et al. 2018", shift_equivariant=False, learnable=True, random=False)
class GemPool(Pool):
    """Generalised mean (mean x^p)^(1/p) over windows of stride x stride, with one learned p per layer.

    p = 1 gives avg, large p approaches max. Inputs are clamped to at least ``eps``, so use it after a ReLU:
    negative inputs are lost. Raises UsageError for an initial p <= 0.
    """

    signed = False
    tunable: ClassVar[Tunable] = {"p": Interval(1, 10, log=True)}

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
        # Dividing by the maximum keeps (x / max)^p in [0, 1] for every p; the division cancels in the result.
        with torch.no_grad():
            top = window_max(clamped, self.stride)
        powers = (clamped / spread(top, self.stride, clamped)).pow(self.p)
        return (window_mean(powers, self.stride).pow(1 / self.p) * top).to(x.dtype)
