"""The network of the shift experiment: three convolutions, a global pool, one logit."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import ClassMaps, Resolution
from poolbench.core import Component, UsageError
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


@architectures.register("shape_net", reference="Scheidl 2022, analyze_pooling")
def shape_net(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 3,
    num_pooling: int = 1,
) -> nn.Module:
    """Three convolutions (f f classes), a pool after the first ``num_pooling`` (0, 1 or 2), global pool.

    Two classes have one logit. Raises UsageError for another ``num_pooling``.
    """
    if num_pooling not in (0, 1, 2):
        raise UsageError(f"num_pooling is 0, 1 or 2, got {num_pooling}")
    outputs = 1 if num_classes == 2 else num_classes
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index in (1, 2):
        layers[f"conv{index}"] = maps.conv3x3(channels, width)
        layers[f"relu{index}"] = nn.ReLU()
        channels = width
        if index <= num_pooling:
            layers[f"pool{index}"] = maps.halve(channels, floor=True)
    layers["conv3"] = maps.conv3x3(channels, outputs)
    layers["classifier"] = ClassMaps(head, outputs, maps.size)
    return nn.Sequential(layers)
