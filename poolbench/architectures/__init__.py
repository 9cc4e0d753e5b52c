"""Networks with a free slot for every downsampling (pool) and for the global pooling (head)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from poolbench.architectures.timm_models import timm_model
from poolbench.core import Scalar, UsageError
from poolbench.pooling.padding import PaddingMode, check_padding_mode
from poolbench.registry import TIMM, architectures, heads, pools

__all__ = ["create_model"]


def create_model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str = "max",
    head: str = "avg",
    padding_mode: PaddingMode = "zeros",
    width: int | None = None,
    **options: Scalar,
) -> nn.Module:
    """Return a classifier mapping (b, *in_shape) -> (b, num_classes) logits, one logit for shape_net.

    ``name`` is registered, or "timm:NAME" for any model of timm (see ``timm_models.timm_model``).
    ``width`` is the number of channels of the first stage (None: the published one). Raises
    UsageError for unknown names, for options that the architecture does not have and for images too
    small for its downsamplings.
    """
    check_padding_mode(padding_mode)
    heads.check(head)
    if pool != "none":
        pools.check(pool)
    arguments: dict[str, Any] = dict(options)
    if width is not None:
        arguments["width"] = width
    build = partial(timm_model, name.removeprefix(TIMM)) if name.startswith(TIMM) else architectures.get(name)
    try:
        model = build(in_shape, num_classes, pool=pool, head=head, padding_mode=padding_mode, **arguments)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UsageError(f"architecture '{name}' has no such option: {error}") from error
    assert isinstance(model, nn.Module)
    return model
