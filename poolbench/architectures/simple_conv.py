"""SimpleConv, the plain network of the rotation study (Quiroga et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import Resolution, hidden_classifier
from poolbench.core import Component
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


@architectures.register("simple_conv", reference="Quiroga et al. 2019")
def simple_conv(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 32,
    hidden: int = 64,
) -> nn.Module:
    """Five convolutions (f f | 2f 2f | 4f) without normalisation, two linear layers; published head: flatten."""
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate((1, 1, 2, 2, 4), start=1):
        layers[f"conv{index}"] = maps.conv3x3(channels, factor * width)
        layers[f"relu{index}"] = nn.ReLU()
        channels = factor * width
        if index in (2, 4):
            layers[f"pool{index}"] = maps.halve(channels, floor=True)
    layers.update(hidden_classifier(head, channels, maps.size, hidden, num_classes))
    return nn.Sequential(layers)
