"""Weighted means of a window, the weights computed from the map: SoftPool, LIP and stochastic pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import complete, spread, widen, window_max, window_mean
from poolbench.registry import pools


def softmax_mean(x: Tensor, logits: Tensor, stride: int) -> Tensor:
    """Mean of x (b, c, h, w) over windows with weights exp(logits), normalised in each window and channel."""
    # The result does not depend on what is subtracted; with the window's maximum no exponential overflows.
    top = spread(window_max(logits.detach(), stride), stride, logits)
    weights = (logits - top).exp()
    return window_mean(weights * x, stride) / window_mean(weights, stride)


@pools.register("softpool", reference="Stergiou et al. 2021", shift_equivariant=False, learnable=False, random=False)
class SoftPool(nn.Module):
    """Mean over windows of stride x stride, weighted by the softmax of the window's own values, per channel."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        wide = widen(complete(x, self.stride, self.padding_mode))
        return softmax_mean(wide, wide, self.stride).to(x.dtype)


@pools.register("lip", reference="Gao et al. 2019", shift_equivariant=False, learnable=True, random=False)
class LocalImportancePool(nn.Module):
    """Mean over windows of stride x stride with learned weights exp(12 sigmoid(conv1x1(x))).

    The smallest gate of the paper without its instance normalisation, which has no meaning on a map of
    one pixel. A gate of weights 0 gives avg.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        filled = complete(x, self.stride, self.padding_mode)
        logits = 12 * widen(self.gate(filled)).sigmoid()
        return softmax_mean(widen(filled), logits, self.stride).to(x.dtype)


@pools.register("stochastic", reference="Zeiler & Fergus 2013", shift_equivariant=False, learnable=False, random=True)
class StochasticPool(nn.Module):
    """One value of each stride x stride window, drawn with probability proportional to it; the expectation in eval.

    Negative inputs count as 0, so it belongs behind a ReLU; a window without positive values gives 0.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        rates = widen(complete(x, self.stride, self.padding_mode)).relu()
        if self.training:
            # Exponential waiting times with these rates: the first to arrive is a draw in proportion to them.
            speeds = rates.detach() / torch.empty_like(rates).exponential_()
            _, first = F.max_pool2d(speeds, self.stride, ceil_mode=True, return_indices=True)
            return rates.flatten(2).gather(2, first.flatten(2)).view(first.shape).to(x.dtype)
        total = window_mean(rates, self.stride)
        squares = window_mean(rates.square(), self.stride)
        return (squares / total.clamp(min=torch.finfo(total.dtype).tiny)).to(x.dtype)
