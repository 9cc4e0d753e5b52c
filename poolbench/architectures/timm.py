"""Any timm model with its downsamplings and its global pool replaced."""

from __future__ import annotations

from torch import nn

from poolbench.core import Component, UsageError
from poolbench.pooling.padding import PaddingMode
from poolbench.surgery import replace_pooling


def timm_model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
    pretrained: bool = False,
) -> nn.Module:
    """Return timm's model of that name after ``replace_pooling``; ``model.replaced`` lists the replaced paths.

    ``pretrained`` loads timm's weights. Raises UsageError for a model without downsampling or global pool.
    """
    import timm

    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_shape[0])
    try:
        replaced = replace_pooling(model, in_shape, pool, head, padding_mode)
    except UsageError as error:
        raise UsageError(f"timm:{name}: {error}") from error
    model.replaced = replaced  # type: ignore[assignment]
    return model
