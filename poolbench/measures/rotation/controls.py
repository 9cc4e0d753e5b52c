"""A network that must be invariant to quarter turns: what a measure of rotation variance has to call zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class QuarterTurns(nn.Module):
    """Square images (b, c, h, h) -> mean of the model's logits over the four quarter turns.

    Invariant to multiples of 90 degrees bit for bit: opposite turns are added first, so turning the
    input only swaps the operands of additions (group averaging over C4; Cohen and Welling 2016 pool so
    at the end of a network). Four forward passes per image.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, fourth = (self.model(torch.rot90(x, turn, dims=(-2, -1))) for turn in range(4))
        mean: Tensor = ((first + third) + (second + fourth)) / 4
        return mean
