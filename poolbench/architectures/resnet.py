"""Residual networks in their CIFAR form (He et al. 2016): 3x3 stem, no stem pool, four stages."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from poolbench.architectures.blocks import PooledFeatures, conv3x3
from poolbench.pooling import create_pool
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import architectures


class BasicBlock(nn.Module):
    """conv-BN-ReLU-(pool)-conv-BN plus the (pooled, projected) input, then ReLU.

    Where the block halves the map, the pool stands behind the first ReLU (Zhang 2019) and before the
    projection, so "decimate" is the strided block of the paper.
    """

    def __init__(self, channels_in: int, channels: int, pool: str | None, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels_in, channels, padding_mode, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.pool: nn.Module = nn.Identity()
        self.conv2 = conv3x3(channels, channels, padding_mode, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        shortcut: OrderedDict[str, nn.Module] = OrderedDict()
        if pool is not None:
            self.pool = create_pool(pool, channels, padding_mode=padding_mode)
            shortcut["pool"] = create_pool(pool, channels_in, padding_mode=padding_mode)
        if channels_in != channels:
            shortcut["conv"] = nn.Conv2d(channels_in, channels, 1, bias=False)
            shortcut["norm"] = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential(shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.pool(self.relu1(self.norm1(self.conv1(x))))
        out: Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out


@architectures.register("resnet18", reference="He et al. 2016, CIFAR form")
def resnet18(
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
    width: int = 64,
) -> nn.Module:
    """Two basic blocks in each of four stages (f 2f 4f 8f), three halvings; published: decimate and avg."""
    size = (in_shape[1], in_shape[2])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = conv3x3(in_shape[0], width, padding_mode, bias=False)
    layers["norm"] = nn.BatchNorm2d(width)
    layers["relu"] = nn.ReLU()
    channels = width
    for stage in (1, 2, 3, 4):
        out = width * 2 ** (stage - 1)
        halves = stage > 1
        if halves:
            size = (-(-size[0] // 2), -(-size[1] // 2))
        layers[f"block{stage}a"] = BasicBlock(channels, out, pool if halves else None, padding_mode)
        layers[f"block{stage}b"] = BasicBlock(out, out, None, padding_mode)
        channels = out
    layers["classifier"] = PooledFeatures(head, channels, size, num_classes)
    return nn.Sequential(layers)
