"""A network that is exactly invariant to quarter turns: a control for measures of rotation variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuarterTurns(nn.Module):
    """Mean of a model's logits over the four quarter turns of square images: (b, c, h, h) -> (b, outputs).

    Invariant to multiples of 90 degrees bit for bit: opposite turns are added first, so rotating the input
    only swaps the operands of additions. Group averaging over C4; Cohen and Welling 2016 pool this way at
    the end of a network. Costs four forward passes per image.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth = (self.model(torch.rot90(x, turn, dims=(-2, -1))) for turn in range(4))
        mean: Tensor = ((first + third) + (second + fourth)) / 4
        return mean
