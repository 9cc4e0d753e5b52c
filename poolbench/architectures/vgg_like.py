"""VGGLike, the deepest plain network of the rotation study (Quiroga et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import Resolution
from poolbench.core import Component
from poolbench.pooling import create_head
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


@architectures.register("vgg_like", reference="Quiroga et al. 2019")
def vgg_like(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 16,
    hidden: int = 64,
) -> nn.Module:
    """Four blocks of two (conv, ELU, BN), widths f 2f 4f 8f, a pool after each; published head: flatten."""
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block in (1, 2, 3, 4):
        out = width * 2 ** (block - 1)
        for part in "ab":
            layers[f"conv{block}{part}"] = maps.conv3x3(channels, out)
            layers[f"elu{block}{part}"] = nn.ELU()
            layers[f"norm{block}{part}"] = nn.BatchNorm2d(out)
            channels = out
        layers[f"pool{block}"] = maps.halve(channels, floor=True)
    pooled = create_head(head, channels, size=maps.size)
    layers["head"] = pooled
    layers["fc1"] = nn.Linear(channels * pooled.feature_multiplier, hidden)
    layers["norm5"] = nn.BatchNorm1d(hidden)
    layers["relu5"] = nn.ReLU()
    layers["fc2"] = nn.Linear(hidden, num_classes)
    return nn.Sequential(layers)
