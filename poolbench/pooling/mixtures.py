"""Learned mixtures of maximum and mean (Lee, Gallagher & Tu 2016)."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.base import Pool, Tunable
from poolbench.pooling.padding import PaddingMode, cover, pad
from poolbench.pooling.windows import complete, window_max, window_mean
from poolbench.registry import pools
from poolbench.search import Interval


@pools.register("mixed", reference="Lee et al. 2016", shift_equivariant=False, learnable=True, random=False)
class MixedPool(Pool):
    """a max + (1 - a) avg over windows of stride x stride, with one learned a = sigmoid(logit) per layer.

    ``a`` is the initial share of the maximum. 0 and 1 give exactly avg and max and never change, as the
    sigmoid saturates. Raises UsageError outside of 0 to 1.
    """

    tunable: ClassVar[Tunable] = {"a": Interval(0.05, 0.95)}

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros", a: float = 0.5) -> None:
        super().__init__()
        if not 0 <= a <= 1:
            raise UsageError(f"pool 'mixed' needs a share a of the maximum from 0 to 1, got {a}")
        self.stride, self.padding_mode = stride, padding_mode
        self.logit = nn.Parameter(torch.logit(torch.tensor(float(a))))

    def forward(self, x: Tensor) -> Tensor:
        x = complete(x, self.stride, self.padding_mode)
        a = self.logit.sigmoid()
        return a * window_max(x, self.stride) + (1 - a) * window_mean(x, self.stride)


@pools.register("gated", reference="Lee et al. 2016", shift_equivariant=False, learnable=True, random=False)
class GatedPool(Pool):
    """g max + (1 - g) avg over windows of stride x stride, with g = sigmoid(w . window) for each window.

    All channels share one mask w of stride x stride weights. Pixels beyond the border count as 0 in w . window
    where padding_mode is "zeros".
    """

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__()
        self.stride, self.padding_mode = stride, padding_mode
        self.weight = nn.Parameter(torch.empty(1, 1, stride, stride))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw w so that inputs of variance 1 give gate logits of variance 1."""
        nn.init.normal_(self.weight, std=1 / self.stride)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        padded = pad(x, cover(x.shape[-2:], self.stride, self.stride), self.padding_mode)
        weight = self.weight.expand(channels, 1, -1, -1)
        gate = F.conv2d(padded, weight, stride=self.stride, groups=channels).sigmoid().to(x.dtype)
        x = complete(x, self.stride, self.padding_mode)
        return gate * window_max(x, self.stride) + (1 - gate) * window_mean(x, self.stride)
