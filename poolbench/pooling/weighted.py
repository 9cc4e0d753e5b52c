"""Weighted means of a window with weights computed from the map: SoftPool, LIP and stochastic pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.base import Pool
from poolbench.pooling.padding import PaddingMode, pad
from poolbench.pooling.windows import complete, spread, widen, window_max, window_mean
from poolbench.registry import pools


def softmax_mean(x: Tensor, logits: Tensor, stride: int) -> Tensor:
    """Return the mean of x (b, c, h, w) over windows with weights softmax(logits), per window and channel.

    Output is (b, c, ceil(h/stride), ceil(w/stride)); logits have the shape of x.
    """
    # Subtracting the window's maximum prevents overflow and cancels in the result.
    with torch.no_grad():
        top = spread(window_max(logits, stride), stride, logits)
    weights = (logits - top).exp()
    return window_mean(weights * x, stride) / window_mean(weights, stride)


@pools.register("softpool", reference="Stergiou et al. 2021", shift_equivariant=False, learnable=False, random=False)
class SoftPool(Pool):
    """Mean over windows of stride x stride, weighted by the softmax of the window's values, per channel."""

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        wide = widen(complete(x, self.stride, self.padding_mode))
        return softmax_mean(wide, wide, self.stride).to(x.dtype)


@pools.register("lip", reference="Gao et al. 2019", shift_equivariant=False, learnable=True, random=False)
class LocalImportancePool(Pool):
    """Mean over overlapping 3x3 windows around every stride-th pixel, weights exp(12 sigmoid(conv1x1(x))).

    Windows as published; mode "zeros" crops them at the border. The smallest gate of the paper, without its
    instance normalisation, which is undefined for a map of one pixel. A gate with weights 0 gives the plain mean
    of each window.
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In mode "zeros" avg_pool2d pads the weights, too: pixels beyond the border have weight 0.
        inside = self.padding_mode == "zeros"
        filled = x if inside else pad(x, (1, 1, 1, 1), self.padding_mode)
        # Weights run from exp(-12) to 1: the factor exp(-12) cancels in the ratio.
        weights = (12 * widen(self.gate(filled)).sigmoid() - 12).exp()
        above, below = (F.avg_pool2d(part, 3, self.stride, int(inside)) for part in (weights * filled, weights))
        return (above / below).to(x.dtype)


@pools.register("stochastic", reference="Zeiler & Fergus 2013", shift_equivariant=False, learnable=False, random=True)
class StochasticPool(Pool):
    """One value per window of stride x stride, sampled in proportion to the values; the expectation in eval mode.

    Negative inputs count as 0, so use it after a ReLU. A window without positive values gives 0.
    """

    signed = False

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode

    def forward(self, x: Tensor) -> Tensor:
        rates = widen(complete(x, self.stride, self.padding_mode)).relu()
        if self.training:
            # The smallest of exponential waiting times with these rates is a sample in proportion to the rates.
            speeds = rates.detach() / torch.empty_like(rates).exponential_()
            _, first = F.max_pool2d(speeds, self.stride, ceil_mode=True, return_indices=True)
            return rates.flatten(2).gather(2, first.flatten(2)).view(first.shape).to(x.dtype)
        total = window_mean(rates, self.stride)
        squares = window_mean(rates.square(), self.stride)
        return (squares / total.clamp(min=torch.finfo(total.dtype).tiny)).to(x.dtype)
