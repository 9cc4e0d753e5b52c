"""Attention heads: SimPool, and CLIP's position-aware attention pool as a control."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.base import Head
from poolbench.pooling.heads import Size, known_size
from poolbench.registry import heads


@heads.register("simpool", reference="Psomas et al. 2023", shift_equivariant=True, learnable=True, random=False)
class SimPool(Head):
    """Mean over positions, weighted by softmax(key . query / sqrt(c)): query from the mean, one key per position.

    Keys come from the layer-normalised positions, values are the positions themselves. Normalised values, as in
    timm's SimPool2d, would lose the scale of class maps. Maps of one channel are not normalised, as that would
    leave nothing. One attention head and no power mean, as in the plain form of the paper.
    """

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        # No bias: the same for every key, it cancels in the softmax.
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        values = x.flatten(2).transpose(1, 2)
        channels = x.shape[1]
        normalised = F.layer_norm(values, (channels,)) if channels > 1 else values
        query, keys = self.query(values.mean(1)), self.key(normalised)
        scores = (keys @ query.unsqueeze(2)).squeeze(2) / channels**0.5
        weights = scores.softmax(1).to(x.dtype)
        out: Tensor = (weights.unsqueeze(2) * values).sum(1)
        return out


@heads.register(
    "attention",
    reference="Radford et al. 2021 (CLIP); position-aware control",
    shift_equivariant=False,
    learnable=True,
    random=False,
)
class PositionalAttention(Head):
    """CLIP's attention pool: the mean attends to all positions, with learned positional embeddings.

    Uses attention heads of 64 channels, or a single one if the channels are not a multiple of 64. Equals timm's
    AttentionPool2d, but computes only the query that is used, not one per position.
    """

    keeps_constants = False
    needs_size = True

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        height, width = known_size("attention", size)
        self.num_heads = channels // 64 if channels % 64 == 0 else 1
        self.places = nn.Parameter(torch.empty(height * width + 1, channels))
        self.query = nn.Linear(channels, channels)
        # No bias: the same for every key, it cancels in the softmax.
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the positional embeddings; the linear layers have their own reset_parameters."""
        nn.init.normal_(self.places, std=self.places.shape[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), 1) + self.places
        query, keys, values = (
            part.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(tokens[:, :1]), self.key(tokens), self.value(tokens))
        )
        pooled: Tensor = self.out(F.scaled_dot_product_attention(query, keys, values).flatten(1))
        return pooled
