"""The network of the global pooling article: three double convolutions, class maps, global pool."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from poolbench.architectures.blocks import ClassMaps, Resolution
from poolbench.core import Component
from poolbench.pooling import create_head
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


class XavierConv2d(nn.Conv2d):
    """Convolution with the article's initialisation: Xavier-uniform weights, bias 0.01."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.01)


class XavierLinear(nn.Linear):
    """Linear layer with the article's initialisation: Xavier-uniform weights, bias 0.01."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.01)


@architectures.register("fashion_convnet", reference="article 'Global pooling in convolutional neural networks'")
def fashion_convnet(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 8,
    sigmoid: bool = False,
    head_on: Literal["class_maps", "features"] = "class_maps",
) -> nn.Module:
    """Three stages of two convolutions (f 2f 4f), 1x1 class maps, global pool.

    The published network ends in a ``sigmoid``. ``head_on`` "features" pools the last feature maps and classifies
    them by a linear layer: feature maps are not negative, as gem needs; class maps are, and gem clamps that part.
    For head avg the two are the same function.
    """
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage in (1, 2, 3):
        wide = width * 2 ** (stage - 1)
        for part in "ab":
            layers[f"conv{stage}{part}"] = maps.conv3x3(channels, wide, kind=XavierConv2d)
            layers[f"relu{stage}{part}"] = nn.ReLU()
            channels = wide
        layers[f"pool{stage}"] = maps.halve(channels, floor=True)
    if head_on == "features":
        layers["head"] = pooled = create_head(head, channels, size=maps.size)
        layers["linear"] = XavierLinear(channels * pooled.feature_multiplier, num_classes)
    else:
        layers["class_maps"] = XavierConv2d(channels, num_classes, 1)
        layers["classifier"] = ClassMaps(head, num_classes, maps.size)
    if sigmoid:
        layers["sigmoid"] = nn.Sigmoid()
    return nn.Sequential(layers)
