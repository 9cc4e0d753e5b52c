"""The downsamplings of the user's network, and copies of it with other pools in their place."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

from torch import nn

from poolbench.core import Component, UsageError
from poolbench.own_model.model import own_path
from poolbench.registry import pools
from poolbench.surgery import Site, find_sites, replace_pooling

KINDS: Mapping[str, str] = {
    "convolution": "strided convolution",
    "max_pool": "max pool",
    "avg_pool": "average pool",
    "patch_embedding": "patch embedding",
}
BLUR = "blur3"


def downsamplings(network: nn.Module, in_shape: tuple[int, int, int]) -> list[Site]:
    """Return the downsamplings of a network for images (c, h, w), in order of execution; [] if it cannot be traced."""
    try:
        return find_sites(copy.deepcopy(network).cpu(), in_shape)
    except UsageError:
        return []


def swapped(
    network: nn.Module, pool: Component, in_shape: tuple[int, int, int], paths: Sequence[str]
) -> tuple[nn.Module, list[str]]:
    """Return a copy of the network, on the CPU, with that pool at some downsamplings, and what was done in words.

    A max pool whose windows do not overlap gets the pool behind a dense maximum ("max_blur3"
    for "blur3"), since the pool alone would drop the maximum. Raises UsageError where surgery does, and where a
    downsampling cannot be replaced.
    """
    changed = copy.deepcopy(network).cpu()
    by_pool: dict[str, list[str]] = {}
    for path in paths:
        by_pool.setdefault(_name_at(changed.get_submodule(path), pool.name), []).append(path)
    done: list[str] = []
    left: dict[str, str] = {}
    # Pools behind a maximum first: they change no path of the others.
    for name in sorted(by_pool, key=lambda name: name == pool.name):
        component = pool if name == pool.name else Component(name, pool.options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nothing changed is an error here
            found = replace_pooling(changed, component, in_shape=in_shape, sites=by_pool[name])
        changed = found.module
        done += [
            f"{own_path(one.site.path)}: {name} at {own_path(one.at)}{f' ({one.note})' if one.note else ''}"
            for one in found.replaced
        ]
        left |= {one.path: one.reason for one in found.left if one.path in by_pool[name]}
    if left:
        raise UsageError("; ".join(f"{own_path(path)}: {reason}" for path, reason in left.items()))
    return changed.eval(), done


def _name_at(module: nn.Module, pool: str) -> str:
    """Return the name of the pool for one downsampling."""
    behind_maximum = f"max_{pool}"
    if isinstance(module, nn.MaxPool2d) and behind_maximum in pools.names():
        kernel, stride = (
            value if isinstance(value, int) else max(value) for value in (module.kernel_size, module.stride)
        )
        return behind_maximum if kernel <= stride else pool
    return pool


def antialiased(network: nn.Module, site: Site, in_shape: tuple[int, int, int]) -> nn.Module:
    """Return a copy of the network, on the CPU, with that one downsampling blurred and its weights unchanged.

    The blur comes after the activation (Zhang 2019). Raises UsageError where that is impossible.
    """
    return swapped(network, pools.resolve(BLUR), in_shape, [site.path])[0]
