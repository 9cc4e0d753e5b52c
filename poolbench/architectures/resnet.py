"""Residual networks in their CIFAR form (He et al. 2016): 3x3 stem, no stem pool."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from poolbench.architectures.blocks import PooledFeatures, Resolution
from poolbench.core import Component
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.polyphase import PolyphasePool
from poolbench.registry import architectures


class Block(nn.Module):
    """A residual branch ``before`` - pool - ``after`` plus the (pooled, projected) input, then ReLU.

    The pool follows a ReLU (Zhang 2019) and precedes the projection, so "decimate" gives the strided block of the
    paper. A polyphase pool chooses its phase on the branch and the shortcut uses the same: the sum of different
    phases would not be equivariant (Chaman & Dokmanic 2021).
    """

    def __init__(
        self,
        before: nn.Sequential,
        pools: tuple[nn.Module, nn.Module] | None,
        after: nn.Sequential,
        channels_in: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.shortcut_pool, self.pool = pools or (nn.Identity(), nn.Identity())
        projection: OrderedDict[str, nn.Module] = OrderedDict()
        if channels_in != channels:
            projection["conv"] = nn.Conv2d(channels_in, channels, 1, bias=False)
            projection["norm"] = nn.BatchNorm2d(channels)
        self.projection = nn.Sequential(projection)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        branch = self.before(x)
        if isinstance(self.pool, PolyphasePool) and isinstance(self.shortcut_pool, PolyphasePool):
            prepared = self.pool.prepare(branch)
            phase = self.pool.choose(prepared)
            branch = self.pool.take(prepared, phase)
            shortcut = self.shortcut_pool.take(self.shortcut_pool.prepare(x), phase)
        else:
            branch, shortcut = self.pool(branch), self.shortcut_pool(x)
        out: Tensor = self.relu(self.after(branch) + self.projection(shortcut))
        return out


def basic_block(maps: Resolution, channels_in: int, channels: int, halves: bool) -> Block:
    """Return conv3x3-BN-ReLU-(pool)-conv3x3-BN with its shortcut."""
    before = nn.Sequential(
        OrderedDict(conv=maps.conv3x3(channels_in, channels, bias=False), norm=nn.BatchNorm2d(channels), relu=nn.ReLU())
    )
    pools = (maps.shortcut_pool(channels_in), maps.halve(channels)) if halves else None
    after = nn.Sequential(OrderedDict(conv=maps.conv3x3(channels, channels, bias=False), norm=nn.BatchNorm2d(channels)))
    return Block(before, pools, after, channels_in, channels)


def bottleneck(maps: Resolution, channels_in: int, channels: int, halves: bool) -> Block:
    """Return conv1x1-BN-ReLU-conv3x3-BN-ReLU-(pool)-conv1x1-BN with its shortcut; output (b, channels, h, w)."""
    narrow = channels // 4
    before = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels_in, narrow, 1, bias=False),
            norm1=nn.BatchNorm2d(narrow),
            relu1=nn.ReLU(),
            conv2=maps.conv3x3(narrow, narrow, bias=False),
            norm2=nn.BatchNorm2d(narrow),
            relu2=nn.ReLU(),
        )
    )
    pools = (maps.shortcut_pool(channels_in), maps.halve(narrow)) if halves else None
    after = nn.Sequential(OrderedDict(conv=nn.Conv2d(narrow, channels, 1, bias=False), norm=nn.BatchNorm2d(channels)))
    return Block(before, pools, after, channels_in, channels)


def _residual(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int,
    blocks: tuple[int, ...],
    expansion: int = 1,
) -> nn.Module:
    """Return stem, stages of ``blocks`` with widths f 2f 4f ... (all but the first halve), head and linear layer."""
    maps = Resolution(in_shape, pool, padding_mode)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = maps.conv3x3(in_shape[0], width, bias=False)
    layers["norm"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    channels = width
    for stage, count in enumerate(blocks, start=1):
        out = width * 2 ** (stage - 1) * expansion
        for index in range(count):
            build = basic_block if expansion == 1 else bottleneck
            layers[f"block{stage}_{index + 1}"] = build(maps, channels, out, halves=stage > 1 and index == 0)
            channels = out
    layers["classifier"] = PooledFeatures(head, channels, maps.size, num_classes)
    return nn.Sequential(layers)


@architectures.register("resnet18", reference="He et al. 2016, CIFAR form")
def resnet18(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 64,
) -> nn.Module:
    """Two basic blocks in each of four stages (f 2f 4f 8f), three halvings; published: decimate and avg."""
    return _residual(in_shape, num_classes, pool, head, padding_mode, width, (2, 2, 2, 2))


@architectures.register("resnet50", reference="He et al. 2016, CIFAR form")
def resnet50(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 64,
) -> nn.Module:
    """3, 4, 6, 3 bottlenecks (4f 8f 16f 32f), three halvings; published: decimate and avg."""
    return _residual(in_shape, num_classes, pool, head, padding_mode, width, (3, 4, 6, 3), expansion=4)


@architectures.register("resnet20", reference="He et al. 2016, CIFAR-10 networks")
def resnet20(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    width: int = 16,
) -> nn.Module:
    """Three basic blocks in each of three stages (f 2f 4f), two halvings; published: decimate and avg."""
    return _residual(in_shape, num_classes, pool, head, padding_mode, width, (3, 3, 3))
