"""Any timm model, its downsamplings and its global pool replaced by the chosen ones."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures.blocks import Crop, Size
from poolbench.core import UsageError
from poolbench.pooling import create_head, create_pool
from poolbench.pooling.padding import PaddingMode
from poolbench.registry import closest


class GlobalPool(nn.Module):
    """A head in the place of a timm global pool: (b, c, h, w) -> (b, c), or (b, c, 1, 1) where that came out.

    A head that yields several features per channel is projected back to c by a linear layer, so that
    the classifier behind it keeps its shape and its pretrained weights.
    """

    def __init__(self, head: str, channels: int, size: Size, flat: bool) -> None:
        super().__init__()
        self.head, self.flat = create_head(head, channels, size=size), flat
        features = channels * self.head.feature_multiplier
        self.project = nn.Identity() if features == channels else nn.Linear(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(self.head(x))
        return pooled if self.flat else pooled[:, :, None, None]


def timm_model(
    name: str,
    in_shape: tuple[int, int, int],
    num_classes: int,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
    pretrained: bool = False,
) -> nn.Module:
    """Return timm's model of that name with every downsampling and the global pool replaced.

    A max or average pool with a stride becomes the pool; a strided convolution becomes the same
    convolution with stride 1 (its weights stay) and the pool behind it; the global pool becomes the
    head. Maps keep the sizes they had. ``model.replaced`` lists the parts by path.

    Raises UsageError for an unknown model, and where there is no downsampling or no global pool to
    replace. Polyphase pools choose for each place on their own here: residual branches do not share
    their phase, so unlike in :mod:`poolbench.architectures.resnet` such a network is not exactly
    equivariant.
    """
    import timm

    if not timm.is_model(name):
        raise closest("timm model", name, timm.list_models())
    if pool in ("none", "dense"):
        raise UsageError(f"pool '{pool}' does not fit timm models: later layers would have to be dilated; use another")
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_shape[0])
    sizes = _sizes(model, in_shape)
    replaced: list[str] = []
    for path, module in list(model.named_modules()):
        if path not in sizes:
            continue
        new = _replacement(module, *sizes[path], pool, head, padding_mode)
        if new is not None:
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, new)
            replaced.append(path)
    kinds = {type(model.get_submodule(path)) for path in replaced}
    if not kinds - {GlobalPool}:
        raise UsageError(f"timm:{name} has no strided convolution or pool that '{pool}' could replace; use another")
    if GlobalPool not in kinds:
        raise UsageError(f"timm:{name} has no global pool that head '{head}' could replace; use another model")
    model.replaced = replaced  # type: ignore[assignment]
    return model


def _sizes(model: nn.Module, in_shape: tuple[int, int, int]) -> dict[str, tuple[torch.Size, torch.Size]]:
    """Shapes (input, output) of every module that maps (b, c, h, w) to a tensor, by path."""
    found: dict[str, tuple[torch.Size, torch.Size]] = {}

    def hook(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 4 and isinstance(output, Tensor):
                found[path] = (inputs[0].shape, output.shape)

        return note

    hooks = [module.register_forward_hook(hook(path)) for path, module in model.named_modules() if path]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, *in_shape))
    except RuntimeError as error:
        raise UsageError(f"the model does not take images of {tuple(in_shape)}: {error}") from error
    finally:
        model.train(training)
        for handle in hooks:
            handle.remove()
    return found


def _replacement(
    module: nn.Module,
    shape_in: torch.Size,
    shape_out: torch.Size,
    pool: str,
    head: str,
    padding_mode: PaddingMode,
) -> nn.Module | None:
    from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d

    if isinstance(module, SelectAdaptivePool2d):
        size = (shape_in[2], shape_in[3])
        return GlobalPool(head, shape_in[1], size, flat=len(shape_out) == 2)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        stride = _stride(module.stride)
        if stride > 1:
            return nn.Sequential(_pool(pool, shape_in, shape_out, stride, padding_mode))
    elif isinstance(module, nn.Conv2d):
        stride = _stride(module.stride)
        if stride > 1:
            dense = _dense(module, padding_mode)
            with torch.no_grad():
                between = dense(torch.zeros(shape_in)).shape
            layers = OrderedDict(conv=dense, pool=_pool(pool, between, shape_out, stride, padding_mode))
            return nn.Sequential(layers)
    return None


def _stride(stride: int | tuple[int, ...]) -> int:
    return stride if isinstance(stride, int) else max(stride)


def _dense(convolution: nn.Conv2d, padding_mode: PaddingMode) -> nn.Conv2d:
    """The convolution with stride 1, the chosen padding mode and the same weights.

    timm's own kinds (TensorFlow's padding, standardised weights) keep their kind, and their padding.
    """
    if type(convolution) is not nn.Conv2d:
        dense = copy.deepcopy(convolution)
        dense.stride = (1, 1)
        return dense
    dense = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=convolution.bias is not None,
        padding_mode=padding_mode,
    )
    dense.load_state_dict(convolution.state_dict())
    return dense


def _pool(pool: str, shape_in: torch.Size, shape_out: torch.Size, stride: int, padding_mode: PaddingMode) -> nn.Module:
    """The pool for a map of that shape, cropped first where the replaced part floored its size."""
    layer = create_pool(pool, shape_in[1], stride=stride, padding_mode=padding_mode)
    given = (shape_in[2], shape_in[3])
    wanted = (shape_out[2], shape_out[3])
    if tuple(-(-n // stride) for n in given) == wanted:
        return layer
    needed = (wanted[0] * stride, wanted[1] * stride)
    if needed[0] > given[0] or needed[1] > given[1]:
        raise UsageError(
            f"a map of {given[0]}x{given[1]} cannot be pooled to {wanted[0]}x{wanted[1]}; use larger images"
        )
    return nn.Sequential(OrderedDict(crop=Crop(needed), pool=layer))
