"""A plain stack of strided convolutions, in which every halving is the same."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from poolbench.architectures.blocks import Resolution, hidden_classifier
from poolbench.core import Component, UsageError
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures

MOST_BLOCKS = 5


@architectures.register("strided_net", reference="common practice; DCGAN's discriminator (Radford et al. 2016)")
def strided_net(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 16,
    hidden: int = 64,
    dropout: float = 0.1,
    published: bool = False,
    blocks: int = 5,
) -> nn.Module:
    """One to five halving conv-BN-ReLU-dropout blocks (f 2f 4f 8f 16f), two linear layers; published: decimate and avg.

    By default the pool follows the ReLU, where max pooling and blurs belong, convolutions have a bias and dropout
    drops single values. ``published`` builds the original's blocks: padded 3x3 convolution without bias, directly
    followed by the pool (with "decimate" the two are the strided convolution, and BN sees the halved map), then BN,
    ReLU, and dropout of whole channels (Dropout2d). A ReLU stands between the two linear layers in both. Raises
    UsageError for another number of ``blocks``.
    """
    if not 1 <= blocks <= MOST_BLOCKS:
        raise UsageError(f"blocks is 1 to {MOST_BLOCKS}, got {blocks}")
    channels, maps = in_shape[0], Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block in range(1, blocks + 1):
        out = width * 2 ** (block - 1)
        layers[f"conv{block}"] = maps.conv3x3(channels, out, bias=not published)
        if published:
            layers[f"pool{block}"] = maps.halve(out)
        layers[f"norm{block}"] = nn.BatchNorm2d(out)
        layers[f"relu{block}"] = nn.ReLU()
        if not published:
            layers[f"pool{block}"] = maps.halve(out)
        layers[f"dropout{block}"] = nn.Dropout2d(dropout) if published else nn.Dropout(dropout)
        channels = out
    layers.update(hidden_classifier(head, channels, maps.size, hidden, num_classes))
    return nn.Sequential(layers)
