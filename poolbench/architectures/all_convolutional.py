"""AllConvolutional (Springenberg et al. 2015) as in the rotation study (Quiroga et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import ClassMaps, Resolution
from poolbench.core import Component
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


@architectures.register("all_convolutional", reference="Springenberg et al. 2015; Quiroga et al. 2019")
def all_convolutional(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 16,
    padded_1x1: bool = False,
) -> nn.Module:
    """Eight conv-BN-ReLU (f f f/2 2f 2f 2f/2 2f, 1x1 2f), class maps, head; published: decimate and avg.

    The two strided convolutions are convolutions with stride 1 followed by the pool, so pool "decimate" gives the
    published network. ``padded_1x1`` pads the 1x1 convolution by one pixel on each side, as the code of the rotation
    study does: maps of 28x28 images end at 9x9 in place of 7x7, and the head averages over that border, which in a
    circular network costs the exact invariance to shifts.
    """
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate((1, 1, 1, 2, 2, 2, 2, 2), start=1):
        out = factor * width
        layers[f"conv{index}"] = (
            maps.conv3x3(channels, out) if index < 8 else maps.conv1x1(channels, out, int(padded_1x1))
        )
        layers[f"norm{index}"] = nn.BatchNorm2d(out)
        layers[f"relu{index}"] = nn.ReLU()
        channels = out
        if index in (3, 6):
            layers[f"pool{index}"] = maps.halve(channels)
    layers["class_maps"] = nn.Conv2d(channels, num_classes, 1)
    layers["relu9"] = nn.ReLU()
    layers["classifier"] = ClassMaps(head, num_classes, maps.size)
    return nn.Sequential(layers)
