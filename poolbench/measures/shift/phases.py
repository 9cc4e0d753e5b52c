"""Logits for all circular shifts within one period, with what neighbouring shifts share computed once.

A layer with stride 1 and circular padding moves with its input, so it needs no further pass for a shifted
image. Only a layer with stride k tells k^2 shifts apart. So the images go through the layers before the first
stride once, through those between the first and the second k^2 times on maps of 1/k^2 the size, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

from poolbench.recording import CPU_ELEMENTS, GPU_ELEMENTS


def layer_chain(model: nn.Module) -> list[nn.Module]:
    """Return the layers that ``model`` applies one after the other: the contents of nested ``nn.Sequential``."""
    if type(model).forward is nn.Sequential.forward:
        return [layer for child in model.children() for layer in layer_chain(child)]
    return [model]


def strides_of(layers: list[nn.Module], image: Tensor) -> list[int] | None:
    """Return the stride of each layer for one image (1, c, h, w); None if a map's size is not a multiple of the next.

    Layers without a map as output (heads, linear layers) have stride 1.
    """
    strides = []
    with torch.no_grad():
        for layer in layers:
            result = layer(image)
            stride = 1
            if image.dim() == result.dim() == 4 and min(result.shape[-2:]) > 1:
                (stride, rest), (across, rest_across) = (
                    divmod(before, after) for before, after in zip(image.shape[-2:], result.shape[-2:], strict=True)
                )
                if rest or rest_across or stride != across or stride < 1:
                    return None
            strides.append(stride)
            image = result
    return strides


def period_by_layers(model: nn.Module, images: Tensor, total_stride: int) -> Tensor | None:
    """Return the logits (total_stride, total_stride, n, outputs) of images (n, c, h, w) for all shifts of one period.

    The network is taken to be a chain of layers (:func:`layer_chain`), each of which moves its output by one
    position when its input moves by its stride. The caller compares the result with forward passes. None if
    the layers' strides do not multiply to ``total_stride``, and for a single layer.
    """
    model.eval()
    layers = layer_chain(model)
    strides = strides_of(layers, images[:1]) if len(layers) > 1 else None
    if strides is None or prod(strides) != total_stride:
        return None
    chunk = max(1, (GPU_ELEMENTS if images.is_cuda else CPU_ELEMENTS) // images[0].numel())
    with torch.no_grad():
        logits = torch.cat([_phases(layers, strides, part) for part in images.split(chunk)], dim=1)
    if logits.dim() != 3:
        return None
    # From (..., second stride's rows and columns, first stride's rows and columns) to (rows, columns).
    sizes = [stride for stride in reversed(strides) for _ in range(2)]
    rows, columns = range(0, len(sizes), 2), range(1, len(sizes), 2)
    ordered: Tensor = logits.unflatten(0, sizes)
    ordered = ordered.permute(*rows, *columns, len(sizes), len(sizes) + 1)
    return ordered.reshape(total_stride, total_stride, *logits.shape[1:])


def _phases(layers: list[nn.Module], strides: list[int], maps: Tensor) -> Tensor:
    """Return the outputs (shifts, b, outputs) of the layers for maps (b, ...); later strides vary slowest."""
    for index, (layer, stride) in enumerate(zip(layers, strides, strict=True)):
        if stride == 1:
            maps = layer(maps)
            continue
        rest = layers[index + 1 :], strides[index + 1 :]
        parts = [_phases(*rest, layer(rolled)) for rolled in _rolled(maps, stride)]
        # (shifts of the later strides, shifts of this one, b, outputs)
        return torch.stack(parts, dim=1).flatten(0, 1)
    return maps[None]


def _rolled(maps: Tensor, stride: int) -> Iterator[Tensor]:
    for dy in range(stride):
        for dx in range(stride):
            yield torch.roll(maps, (dy, dx), dims=(-2, -1)) if dy or dx else maps
