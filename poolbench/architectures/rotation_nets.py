"""Three networks of the rotation study: SimpleConv, AllConvolutional, VGGLike (Quiroga et al. 2019)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import ClassMaps, Resolution
from poolbench.pooling import create_head
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


@architectures.register("simple_conv", reference="Quiroga et al. 2019")
def simple_conv(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
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
    pooled = create_head(head, channels, size=maps.size)
    layers["head"] = pooled
    layers["fc1"] = nn.Linear(channels * pooled.feature_multiplier, hidden)
    layers["relu6"] = nn.ReLU()
    layers["fc2"] = nn.Linear(hidden, num_classes)
    return nn.Sequential(layers)


@architectures.register("all_convolutional", reference="Springenberg et al. 2015; Quiroga et al. 2019")
def all_convolutional(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
    width: int = 16,
) -> nn.Module:
    """Eight conv-BN-ReLU (f f f/2 2f 2f 2f/2 2f, 1x1 2f), class maps, head; published: decimate and avg.

    The two strided convolutions are dense convolutions followed by the pool, so pool "decimate" is
    the published network.
    """
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate((1, 1, 1, 2, 2, 2, 2, 2), start=1):
        out = factor * width
        layers[f"conv{index}"] = maps.conv3x3(channels, out) if index < 8 else nn.Conv2d(channels, out, 1)
        layers[f"norm{index}"] = nn.BatchNorm2d(out)
        layers[f"relu{index}"] = nn.ReLU()
        channels = out
        if index in (3, 6):
            layers[f"pool{index}"] = maps.halve(channels)
    layers["class_maps"] = nn.Conv2d(channels, num_classes, 1)
    layers["relu9"] = nn.ReLU()
    layers["classifier"] = ClassMaps(head, num_classes, maps.size)
    return nn.Sequential(layers)


@architectures.register("vgg_like", reference="Quiroga et al. 2019")
def vgg_like(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
    width: int = 16,
    hidden: int = 64,
) -> nn.Module:
    """Four blocks of two (conv, ELU, BN), widths f 2f 4f 8f, a pool behind each; published head: flatten."""
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
