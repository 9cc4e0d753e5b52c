"""Local pools, (b, c, h, w) -> (b, c, ceil(h/stride), ceil(w/stride)), and heads, -> (b, c * feature_multiplier)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from poolbench import registry
from poolbench.core import Component, Scalar
from poolbench.pooling.base import Head, Pool
from poolbench.pooling.padding import PaddingMode, check_padding_mode

__all__ = ["Head", "Pool", "create_head", "create_pool", "list_heads", "list_pools", "pooling_paths"]


def resolve(
    entries: registry.Registry[registry.Factory], given: str | Component, options: Mapping[str, Scalar] | None = None
) -> Component:
    """Return a name or Component with a value for each option; ``options`` override. Raises UsageError."""
    if isinstance(given, str):
        return entries.resolve(given, options)
    return entries.resolve(given.name, {**given.options, **(options or {})})


def list_pools() -> list[str]:
    """Return the names of all local pools, sorted."""
    return registry.pools.names()


def list_heads() -> list[str]:
    """Return the names of all global pools, sorted."""
    return registry.heads.names()


def pool_class(name: str) -> type[Pool]:
    """Return the class of a local pool.

    Raises UsageError for an unknown name and TypeError for a registered class that is not a Pool.
    """
    found = registry.pools.get(name)
    if not (isinstance(found, type) and issubclass(found, Pool)):
        raise TypeError(f"pool '{name}' is not a subclass of poolbench.pooling.Pool")
    return found


def head_class(name: str) -> type[Head]:
    """Return the class of a head.

    Raises UsageError for an unknown name and TypeError for a registered class that is not a Head.
    """
    found = registry.heads.get(name)
    if not (isinstance(found, type) and issubclass(found, Head)):
        raise TypeError(f"head '{name}' is not a subclass of poolbench.pooling.Head")
    return found


def create_pool(
    name: str | Component, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros", **options: Scalar
) -> Pool:
    """Return a module mapping (b, channels, h, w) -> (b, channels, ceil(h/stride), ceil(w/stride)).

    ``options`` override those of a Component. Raises UsageError for an unknown name, option or padding mode.
    """
    check_padding_mode(padding_mode)
    resolved = resolve(registry.pools, name, options)
    build: Callable[..., Pool] = pool_class(resolved.name)
    return build(channels, stride=stride, padding_mode=padding_mode, **resolved.options)


def create_head(name: str | Component, channels: int, size: tuple[int, int] | None = None, **options: Scalar) -> Head:
    """Return a module mapping (b, channels, h, w) -> (b, channels * module.feature_multiplier).

    ``size`` is (h, w); only heads that depend on position need it. ``options`` override those of a Component.
    Raises UsageError for an unknown name or option and for a missing size.
    """
    resolved = resolve(registry.heads, name, options)
    build: Callable[..., Head] = head_class(resolved.name)
    return build(channels, size=size, **resolved.options)


def pooling_paths(model: nn.Module) -> set[str]:
    """Return the paths of all modules of a network that are a Pool or a Head, or lie inside one."""
    inside = {part for module in model.modules() if isinstance(module, Pool | Head) for part in module.modules()}
    return {path for path, module in model.named_modules() if module in inside}
