"""The downsamplings of the user's network, and copies of it in which one of them is anti-aliased."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import nn

from poolbench import surgery
from poolbench.core import Component, UsageError
from poolbench.pooling.padding import PADDING_MODES
from poolbench.registry import pools

KINDS: dict[type[nn.Module], tuple[str, str]] = {
    nn.MaxPool2d: ("max pool", "max_blur3"),
    nn.AvgPool2d: ("average pool", "blur3"),
    nn.Conv2d: ("strided convolution", "blur3"),
}
"""Kind of a downsampling, and the pool that takes its place, by type of the module."""


@dataclass(frozen=True)
class Downsampling:
    """A module that maps maps of ``size_in`` px to fewer, ``size_out``; ``pool`` would anti-alias it."""

    path: str
    kind: str
    stride: int
    size_in: int
    size_out: int
    pool: str


def downsamplings(network: nn.Module, in_shape: tuple[int, int, int]) -> list[Downsampling]:
    """Return the strided convolutions and pools of a network for images (c, h, w), in order of its modules."""
    found = []
    network = copy.deepcopy(network).cpu()
    for path, (given, result) in surgery._shapes(network, in_shape).items():
        module = network.get_submodule(path)
        known = next((names for kind, names in KINDS.items() if isinstance(module, kind)), None)
        if known is None or min(result[-2:]) == 0:
            continue
        stride: int = surgery._stride(module.stride)  # type: ignore[arg-type]
        if stride > 1:
            found.append(Downsampling(path, known[0], stride, given[-1], result[-1], known[1]))
    return found


def swapped(
    network: nn.Module, pool: Component, in_shape: tuple[int, int, int], paths: Sequence[str]
) -> tuple[nn.Module, list[str], list[str]]:
    """Return a copy of the network with that pool at some downsamplings, what was replaced and what was left, in words.

    Raises UsageError where surgery does.
    """
    found = replace_pooling(network, pool, in_shape=in_shape, sites=list(paths))
    done = [f"{own_path(one.site.path)}: {pool.name} at {own_path(one.at)}" for one in found.replaced]
    return found.module.eval(), done, [f"{own_path(one.path)}: {one.reason}" for one in found.left]


def antialiased(network: nn.Module, site: Downsampling, in_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy of the network, on the CPU, with that one downsampling anti-aliased and its weights unchanged.

    A blur comes before the stride (Zhang 2019). Raises UsageError where that is impossible.
    """
    changed = copy.deepcopy(network).cpu()
    module = changed.get_submodule(site.path)
    mode: Any = getattr(module, "padding_mode", "zeros")
    if mode not in PADDING_MODES:
        raise UsageError(f"padding mode '{mode}' has no anti-aliased counterpart")
    shapes = surgery._shapes(changed, in_shape)[site.path]
    replacement = surgery._Replacement(pools.resolve(site.pool), Component("avg"), mode)(module, *shapes)
    assert replacement is not None
    parent, _, child = site.path.rpartition(".")
    setattr(changed.get_submodule(parent), child, replacement)
    return changed.eval()
