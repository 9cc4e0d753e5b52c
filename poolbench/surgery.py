"""Replacement of the downsamplings and the global pool in any nn.Module."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.core import Component, UsageError
from poolbench.pooling import create_head, create_pool, pool_class
from poolbench.pooling.padding import Crop, PaddingMode
from poolbench.recording import recorded

Shapes = tuple[torch.Size, torch.Size]


class GlobalPool(nn.Module):
    """A head in place of timm's global pool, (b, c, h, w) -> (b, c), or (b, c, 1, 1) if not ``flat``.

    A head with several features per channel is projected back to c by a linear layer, so that the classifier
    after it keeps its shape and its pretrained weights.
    """

    def __init__(self, head: Component, channels: int, size: tuple[int, int], flat: bool) -> None:
        super().__init__()
        self.head, self.flat = create_head(head, channels, size=size), flat
        features = channels * self.head.feature_multiplier
        self.project = nn.Identity() if features == channels else nn.Linear(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(self.head(x))
        return pooled if self.flat else pooled[:, :, None, None]


def replace_pooling(
    module: nn.Module,
    in_shape: tuple[int, int, int],
    pool: Component,
    head: Component,
    padding_mode: PaddingMode,
) -> list[str]:
    """Replace all downsamplings and the global pool of a network in place; return the replaced paths.

    ``in_shape`` is the (c, h, w) of its images. A max or average pool with a stride becomes the pool. A strided
    convolution becomes the same convolution with stride 1, its weights kept, followed by the pool. timm's global
    pool becomes the head. Maps keep their sizes.

    Raises UsageError if there is no downsampling or no global pool to replace, for a pool without subsampling,
    and for images that the network does not take. Polyphase pools choose a phase for each place separately
    here: residual branches do not share it, so unlike in ``poolbench.architectures.resnet`` such a network is not
    exactly equivariant.
    """
    if pool.name == "none" or pool_class(pool.name).keeps_size:
        raise UsageError(
            f"pool '{pool.name}' cannot replace a downsampling: later layers would have to be dilated; use another"
        )
    replacement = _Replacement(pool, head, padding_mode)
    shapes = _shapes(module, in_shape)
    replaced: list[str] = []
    for path, part in list(module.named_modules()):
        new = replacement(part, *shapes[path]) if path in shapes else None
        if new is not None:
            parent, _, child = path.rpartition(".")
            setattr(module.get_submodule(parent), child, new)
            replaced.append(path)
    kinds = {type(module.get_submodule(path)) for path in replaced}
    if not kinds - {GlobalPool}:
        raise UsageError(f"no strided convolution or pool that '{pool.name}' could replace; use another model")
    if GlobalPool not in kinds:
        raise UsageError(f"no global pool that head '{head.name}' could replace; use another model")
    return replaced


def _shapes(model: nn.Module, in_shape: tuple[int, int, int]) -> dict[str, Shapes]:
    """Return the shapes (input, output) of every module that maps (b, c, h, w) to a tensor, by path."""
    found: dict[str, Shapes] = {}

    def note(path: str, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 4 and isinstance(output, Tensor):
            found[path] = (inputs[0].shape, output.shape)

    paths = [path for path, _ in model.named_modules() if path]
    training = model.training
    try:
        with recorded(model, paths, note), torch.no_grad():
            model.eval()(torch.zeros(1, *in_shape))
    except RuntimeError as error:
        raise UsageError(f"the model does not take images of {tuple(in_shape)}: {error}") from error
    finally:
        model.train(training)
    return found


@dataclass(frozen=True)
class _Replacement:
    """Builds the replacement of one module."""

    pool: Component
    head: Component
    padding_mode: PaddingMode

    def __call__(self, module: nn.Module, shape_in: torch.Size, shape_out: torch.Size) -> nn.Module | None:
        """Return the module that replaces this one, which maps ``shape_in`` to ``shape_out``; None if it stays."""
        from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d

        if isinstance(module, SelectAdaptivePool2d):
            return GlobalPool(self.head, shape_in[1], (shape_in[2], shape_in[3]), flat=len(shape_out) == 2)
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            stride = _stride(module.stride)
            if stride > 1:
                return nn.Sequential(self._pool(shape_in, shape_out, stride))
        elif isinstance(module, nn.Conv2d):
            stride = _stride(module.stride)
            if stride > 1:
                convolution = _with_stride_one(module, self.padding_mode)
                with torch.no_grad():
                    between = convolution(torch.zeros(shape_in)).shape
                return nn.Sequential(OrderedDict(conv=convolution, pool=self._pool(between, shape_out, stride)))
        return None

    def _pool(self, shape_in: torch.Size, shape_out: torch.Size, stride: int) -> nn.Module:
        """Return the pool for a map of that shape, after a crop where the replaced module floored its size."""
        layer = create_pool(self.pool, shape_in[1], stride=stride, padding_mode=self.padding_mode)
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


def _stride(stride: int | tuple[int, ...]) -> int:
    return stride if isinstance(stride, int) else max(stride)


def _with_stride_one(convolution: nn.Conv2d, padding_mode: PaddingMode) -> nn.Conv2d:
    """Return the convolution with stride 1, the given padding mode and the same weights.

    Subclasses (timm's TensorFlow padding or standardised weights) keep their type and their own padding.
    """
    if type(convolution) is not nn.Conv2d:
        copied = copy.deepcopy(convolution)
        copied.stride = (1, 1)
        return copied
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        padding=convolution.padding,  # type: ignore[arg-type]
        dilation=convolution.dilation,  # type: ignore[arg-type]
        groups=convolution.groups,
        bias=convolution.bias is not None,
        padding_mode=padding_mode,
    )
    plain.load_state_dict(convolution.state_dict())
    return plain
