"""Parts that several families share: the map's resolution while a network grows, class maps, linear ends."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling import create_head, create_pool
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.polyphase import PolyphasePool

Size = tuple[int, int]


class Crop(nn.Module):
    """(b, c, h, w) -> (b, c, *size): drop the last rows and columns."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]


class Resolution:
    """Size and dilation of the map while a network is put together, layer by layer.

    A pool halves the size. Pool "dense" keeps it and doubles the dilation of all later convolutions
    instead: the same receptive fields, evaluated at every position.
    """

    def __init__(self, in_shape: tuple[int, int, int], pool: str, padding_mode: PaddingMode) -> None:
        self.size: Size = in_shape[1:]
        self.pool_name, self.padding_mode = pool, padding_mode
        self.dilation = 1

    def conv3x3(
        self, channels_in: int, channels_out: int, bias: bool = True, kind: type[nn.Conv2d] = nn.Conv2d
    ) -> nn.Conv2d:
        """Return a 3x3 convolution that keeps the map's size."""
        return kind(
            channels_in,
            channels_out,
            3,
            padding=self.dilation,
            dilation=self.dilation,
            padding_mode=self.padding_mode,
            bias=bias,
        )

    def shortcut_pool(self, channels: int) -> nn.Module:
        """Return the pool beside the one that :meth:`halve` gives next; the resolution stays as it is."""
        pool = create_pool(self.pool_name, channels, padding_mode=self.padding_mode)
        return pool.follower() if isinstance(pool, PolyphasePool) else pool

    def halve(self, channels: int, floor: bool = False) -> nn.Module:
        """Return a pool with stride 2 and go on behind it.

        Pools give ceil(n/2). Where the published network floors (7 -> 3), an odd map loses its last row
        and column first, which for max and avg is what torch's floor mode does. Raises UsageError for
        a map that is too small.
        """
        layer = create_pool(self.pool_name, channels, padding_mode=self.padding_mode)
        if self.pool_name == "dense":
            self.dilation *= 2
            return layer
        height, width = self.size
        if floor and min(self.size) < 2:
            raise UsageError(f"a map of {height}x{width} cannot be halved again; use larger images")
        even = (height // 2 * 2, width // 2 * 2)
        cropped = floor and even != self.size
        self.size = (even[0] // 2, even[1] // 2) if floor else (-(-height // 2), -(-width // 2))
        return nn.Sequential(OrderedDict(crop=Crop(even), pool=layer)) if cropped else layer


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
    """Maps (b, c, h, w) -> logits (b, classes): head, then a linear layer."""

    def __init__(self, head: str, channels: int, size: Size, classes: int) -> None:
        pooled = create_head(head, channels, size=size)
        features = channels * pooled.feature_multiplier
        super().__init__(OrderedDict(head=pooled, linear=nn.Linear(features, classes)))
