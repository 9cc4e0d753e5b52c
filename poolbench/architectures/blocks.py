"""Parts that several families share: convolutions by size, floored downsampling, class maps."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling import create_head, create_pool
from poolbench.pooling.padding import PaddingMode

Size = tuple[int, int]


def conv3x3(channels_in: int, channels_out: int, padding_mode: PaddingMode, bias: bool = True) -> nn.Conv2d:
    """Return a 3x3 convolution that keeps the map's size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode=padding_mode, bias=bias)


class Crop(nn.Module):
    """(b, c, h, w) -> (b, c, *size): drop the last rows and columns."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]


def halve_floor(pool: str, channels: int, padding_mode: PaddingMode, size: Size) -> tuple[nn.Module, Size]:
    """Return a pool with stride 2 and the floored size it leaves.

    Pools give ceil(n/2); the networks of the articles floor (7 -> 3), so an odd map loses its last
    row and column first, which for max and avg is what torch's floor mode does.
    """
    half = (size[0] // 2, size[1] // 2)
    if 0 in half:
        raise UsageError(f"a map of {size[0]}x{size[1]} cannot be halved again; use larger images")
    layer = create_pool(pool, channels, padding_mode=padding_mode)
    even = (2 * half[0], 2 * half[1])
    if even == size:
        return layer, half
    return nn.Sequential(OrderedDict(crop=Crop(even), pool=layer)), half


class ClassMaps(nn.Module):
    """Class maps (b, classes, h, w) -> logits (b, classes) through a head.

    A head that gives more than one feature per map is followed by a linear layer.
    """

    def __init__(self, head: str, classes: int, size: Size) -> None:
        super().__init__()
        self.head = create_head(head, classes, size=size)
        features = classes * self.head.feature_multiplier
        self.linear = nn.Identity() if features == classes else nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.head(x))
        return logits


class PooledFeatures(nn.Sequential):
    """Maps (b, c, h, w) -> logits: head, then a linear layer, or two with a layer in between."""

    def __init__(self, head: str, channels: int, size: Size, classes: int) -> None:
        pooled = create_head(head, channels, size=size)
        features = channels * pooled.feature_multiplier
        super().__init__(OrderedDict(head=pooled, linear=nn.Linear(features, classes)))
