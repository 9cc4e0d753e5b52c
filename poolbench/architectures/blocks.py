"""Parts shared by several families: resolution while a network is built, class maps, linear classifiers."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.pooling import create_head, create_pool
from poolbench.pooling.padding import Crop, PaddingMode
from poolbench.pooling.polyphase import PolyphasePool

Size = tuple[int, int]


class Resolution:
    """Size (h, w) and dilation of the map while a network is built layer by layer.

    A pool halves the size. A pool that keeps the size ("dense") doubles the dilation of all later convolutions
    instead: the same receptive fields, evaluated at every position.
    """

    def __init__(self, in_shape: tuple[int, int, int], pool: Component, padding_mode: PaddingMode) -> None:
        self.size: Size = in_shape[1:]
        self.pool, self.padding_mode = pool, padding_mode
        self.dilation = 1

    def conv3x3(
        self, channels_in: int, channels_out: int, bias: bool = True, kind: type[nn.Conv2d] = nn.Conv2d
    ) -> nn.Conv2d:
        """Return a 3x3 convolution with the current dilation that keeps the map's size."""
        return kind(
            channels_in,
            channels_out,
            3,
            padding=self.dilation,
            dilation=self.dilation,
            padding_mode=self.padding_mode,
            bias=bias,
        )

    def conv1x1(self, channels_in: int, channels_out: int, padding: int = 0) -> nn.Conv2d:
        """Return a 1x1 convolution; ``padding`` grows the map by as many pixels on each side."""
        self.size = (self.size[0] + 2 * padding, self.size[1] + 2 * padding)
        return nn.Conv2d(channels_in, channels_out, 1, padding=padding, padding_mode=self.padding_mode)

    def shortcut_pool(self, channels: int) -> nn.Module:
        """Return the pool of the shortcut beside the next :meth:`halve`; does not change the resolution."""
        pool = create_pool(self.pool, channels, padding_mode=self.padding_mode)
        return pool.follower() if isinstance(pool, PolyphasePool) else pool

    def halve(self, channels: int, floor: bool = False) -> nn.Module:
        """Return a pool with stride 2 and update the resolution.

        Pools give ceil(n/2). ``floor`` is for published networks that give floor(n/2): an odd map is cropped by
        its last row and column first, which for max and avg equals torch's floor mode. Raises UsageError for a
        map that is too small.
        """
        layer = create_pool(self.pool, channels, padding_mode=self.padding_mode)
        if layer.keeps_size:
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
    """Class maps (b, classes, h, w) -> logits (b, classes) by a head.

    A linear layer follows if the head gives more than one feature per map.
    """

    def __init__(self, head: Component, classes: int, size: Size) -> None:
        super().__init__()
        self.head = create_head(head, classes, size=size)
        features = classes * self.head.feature_multiplier
        self.linear = nn.Identity() if features == classes else nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.head(x))
        return logits


class PooledFeatures(nn.Sequential):
    """Maps (b, c, h, w) -> logits (b, classes) by a head and a linear layer."""

    def __init__(self, head: Component, channels: int, size: Size, classes: int) -> None:
        pooled = create_head(head, channels, size=size)
        features = channels * pooled.feature_multiplier
        super().__init__(OrderedDict(head=pooled, linear=nn.Linear(features, classes)))


def hidden_classifier(head: Component, channels: int, size: Size, hidden: int, classes: int) -> dict[str, nn.Module]:
    """Return the layers head, fc1, relu6 and fc2: maps (b, c, h, w) -> logits (b, classes)."""
    pooled = create_head(head, channels, size=size)
    fc1 = nn.Linear(channels * pooled.feature_multiplier, hidden)
    return {"head": pooled, "fc1": fc1, "relu6": nn.ReLU(), "fc2": nn.Linear(hidden, classes)}
