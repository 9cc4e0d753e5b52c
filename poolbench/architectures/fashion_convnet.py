"""The network of the global pooling article: three double convolutions, class maps, a global pool."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import ClassMaps, halve_floor
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


class XavierConv2d(nn.Conv2d):
    """A convolution initialised as the article does: Xavier-uniform weights, bias .01."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.constant_(self.bias, 0.01)


@architectures.register("fashion_convnet", reference="article 'Global pooling in convolutional neural networks'")
def fashion_convnet(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
    width: int = 8,
    sigmoid: bool = False,
) -> nn.Module:
    """Three stages of two convolutions (8, 16, 32), 1x1 class maps, global pool; ``sigmoid`` as published."""
    channels, size = in_shape[0], (in_shape[1], in_shape[2])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for stage in (1, 2, 3):
        wide = width * 2 ** (stage - 1)
        for part in "ab":
            layers[f"conv{stage}{part}"] = XavierConv2d(channels, wide, 3, padding=1, padding_mode=padding_mode)
            layers[f"relu{stage}{part}"] = nn.ReLU()
            channels = wide
        layers[f"pool{stage}"], size = halve_floor(pool, channels, padding_mode, size)
    layers["class_maps"] = XavierConv2d(channels, num_classes, 1)
    layers["classifier"] = ClassMaps(head, num_classes, size)
    if sigmoid:
        layers["sigmoid"] = nn.Sigmoid()
    return nn.Sequential(layers)
