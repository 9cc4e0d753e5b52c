"""Networks with a free choice of the downsampling (pool) and of the global pooling (head)."""

from __future__ import annotations

from typing import Any

from torch import nn

from poolbench.architectures.timm import timm_model
from poolbench.core import NO_COMPONENT, Component, Scalar
from poolbench.pooling import resolve
from poolbench.pooling.padding import PaddingMode, check_padding_mode
from poolbench.registry import TIMM, architectures, heads, pools

__all__ = ["create_model"]


def create_model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str | Component = "max",
    head: str | Component = "avg",
    padding_mode: PaddingMode = "zeros",
    width: int | None = None,
    **options: Scalar,
) -> nn.Module:
    """Return a classifier mapping (b, *in_shape) -> (b, num_classes) logits; one logit for shape_net with 2 classes.

    ``name`` is a registered architecture or "timm:NAME" for any model of timm (see ``timm.timm_model``).
    ``pool`` and ``head`` are names, or Components to set their options. ``width`` is the number of channels of
    the first stage (None: the published one). Raises UsageError for an unknown name, option or padding mode
    and for images too small for the downsamplings.
    """
    check_padding_mode(padding_mode)
    given = options if width is None else {**options, "width": width}
    arguments: dict[str, Any] = {
        **architectures.resolve(name, given).options,
        "pool": NO_COMPONENT if pool in (NO_COMPONENT.name, NO_COMPONENT) else resolve(pools, pool),
        "head": resolve(heads, head),
        "padding_mode": padding_mode,
    }
    if name.startswith(TIMM):
        return timm_model(name.removeprefix(TIMM), in_shape, num_classes, **arguments)
    model = architectures.get(name)(in_shape, num_classes, **arguments)
    if not isinstance(model, nn.Module):
        raise TypeError(f"architecture '{name}' returned {type(model).__name__}, not a torch.nn.Module")
    return model
