"""Global pools by attention over positions: SimPool, and CLIP's position-aware attention pool as a control."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.pooling.heads import Head, Size, known_size
from poolbench.registry import heads


@heads.register("simpool", reference="Psomas et al. 2023", shift_equivariant=True, learnable=True, random=False)
class SimPool(Head):
    """Mean over positions, weighted by softmax(key . query / sqrt(c)): the query from the mean, a key per position.

    Keys are taken from the layer-normalised positions, values are the positions themselves: normalised
    values (timm SimPool2d) lose the scale of class maps, and a map of one channel altogether, so that one
    is not normalised at all. One head and no power mean, as the paper's plain form.
    """

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        # No bias: added to every key alike it cancels in the softmax.
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
    """Attention of the mean over positions with learned places (CLIP's); needs the size of the map.

    Heads of 64 channels, one head where 64 does not divide the channels. What timm AttentionPool2d gives,
    from the one query that leaves it: timm computes a query for every position, h w times the work.
    """

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        height, width = known_size("attention", size)
        self.num_heads = channels // 64 if channels % 64 == 0 else 1
        self.places = nn.Parameter(torch.empty(height * width + 1, channels))
        self.query = nn.Linear(channels, channels)
        # No bias: added to every key alike it cancels in the softmax.
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the places; the linear layers are modules of their own and redraw themselves."""
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
