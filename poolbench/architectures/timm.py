"""Any timm model with its downsamplings and its global pool replaced."""

from __future__ import annotations

import warnings

from torch import nn

from poolbench.core import Component, UsageError
from poolbench.pooling.padding import PaddingMode
from poolbench.surgery import GlobalPool, PlacementName, replace_pooling


def timm_model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    pretrained: bool = False,
    placement: PlacementName = "after_activation",
) -> nn.Module:
    """Return timm's model of that name after ``replace_pooling`` of all its downsamplings and of its global pool.

    ``model.replaced`` lists the paths of the downsamplings in timm's model, ``model.left`` what was left alone with
    the reasons. ``pretrained`` loads timm's weights; ``placement`` is that of ``replace_pooling``. Raises UsageError
    for a model without downsampling or global pool: its cells would not differ by their pool or head.
    """
    import timm

    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_shape[0])
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="surgery replaced no downsampling")
            surgery = replace_pooling(
                model, pool, in_shape=in_shape, padding_mode=padding_mode, placement=placement, head=head
            )
        if not any(isinstance(part, GlobalPool) for part in surgery.module.modules()):
            raise UsageError(f"no global pool that head '{head.name}' could replace; use another model")
        if not surgery.replaced:
            raise UsageError(f"no strided convolution or pool that '{pool.name}' could replace; use another model")
    except UsageError as error:
        raise UsageError(f"timm:{name}: {error}") from error
    surgery.module.replaced = [one.site.path for one in surgery.replaced]  # type: ignore[assignment]
    surgery.module.left = surgery.left  # type: ignore[assignment]
    return surgery.module
