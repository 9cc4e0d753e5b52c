"""Local pools, (b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)), and heads, -> (b, c * multiplier)."""

from __future__ import annotations

from torch import nn

from poolbench import registry
from poolbench.core import Scalar
from poolbench.pooling.heads import Head
from poolbench.pooling.padding import PaddingMode, check_padding_mode

__all__ = ["create_head", "create_pool", "list_heads", "list_pools", "pooling_paths"]


def list_pools() -> list[str]:
    """Return the names of all local pools."""
    return registry.pools.names()


def list_heads() -> list[str]:
    """Return the names of all global pools."""
    return registry.heads.names()


def create_pool(
    name: str, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros", **options: Scalar
) -> nn.Module:
    """Return a module mapping (b, channels, h, w) -> (b, channels, ceil(h/stride), ceil(w/stride)).

    Raises UsageError for an unknown name or padding mode.
    """
    check_padding_mode(padding_mode)
    pool = registry.pools.get(name)(channels, stride=stride, padding_mode=padding_mode, **options)
    assert isinstance(pool, nn.Module)
    return pool


def create_head(name: str, channels: int, size: tuple[int, int] | None = None, **options: Scalar) -> Head:
    """Return a module mapping (b, channels, h, w) -> (b, channels * module.feature_multiplier).

    ``size`` is (h, w); only heads that depend on position need it. Raises UsageError for an unknown
    name and where a needed size is missing.
    """
    head = registry.heads.get(name)(channels, size=size, **options)
    assert isinstance(head, Head)
    return head


def pooling_paths(model: nn.Module) -> set[str]:
    """Return the paths of all modules of a network that are a pool or a head, or lie inside one."""
    own = [module for module in model.modules() if type(module).__module__.startswith(f"{__name__}.")]
    inside = {part for module in own for part in module.modules()}
    return {path for path, module in model.named_modules() if module in inside}
