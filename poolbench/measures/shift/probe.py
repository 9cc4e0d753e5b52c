"""What a forward pass reveals about a network's geometry: its total stride and its receptive field."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poolbench.pooling import Head
from poolbench.recording import outputs, recorded


def total_stride(model: nn.Module, canvas: Tensor) -> int:
    """Return the pixels of ``canvas`` (c, h, w) per step of the network's coarsest feature map, at least 1.

    From the sizes of all maps of one forward pass, without global pooling. For networks of convolutions and
    pools this is the period of their output under shifts of the input.
    """
    maps, _ = _probe(model, canvas)
    return max((stride for stride, _ in maps), default=1)


def receptive_reach(model: nn.Module, canvas: Tensor) -> int | None:
    """Return the largest distance, in pixels, from an input pixel of ``canvas`` (c, h, w) to a feature it influences.

    None if the pixel influences a whole map (in some direction) or all tokens of a sequence. Found with a
    NaN in the middle of the canvas, which spreads wherever a convolution, pool or attention carries it,
    whatever the weights and even through dead units.
    """
    height, width = canvas.shape[-2:]
    maps, mixed = _probe(model, canvas)
    if mixed:
        return None
    reach = 0
    for stride, touched in maps:
        for size, middle, dim in ((height, height // 2, 1), (width, width // 2, 0)):
            marked = touched.any(dim=dim).nonzero().flatten()
            if not len(marked):
                continue
            first, last = int(marked.min()) * stride, int(marked.max()) * stride + stride - 1
            if first == 0 or last >= size - 1:
                return None
            reach = max(reach, middle - first, last - middle)
    return reach


def _probe(model: nn.Module, canvas: Tensor) -> tuple[list[tuple[int, Tensor]], bool]:
    """Return [(stride, booleans (h', w'): influenced by the middle pixel)] per feature map, and whether tokens mix.

    Tokens mix if the middle pixel influences every entry of a sequence (b, tokens, channels), as in
    attention over a whole image.
    """
    maps: list[tuple[int, Tensor]] = []
    mixed = False
    global_pools = [module for module in model.modules() if isinstance(module, Head | nn.AdaptiveAvgPool2d)]
    excluded = {part for pool in global_pools for part in pool.modules()}

    def note(path: str, inputs: tuple[Any, ...], output: object) -> None:
        nonlocal mixed
        if not isinstance(output, Tensor):
            return
        if output.dim() == 4 and min(output.shape[-2:]) > 1:
            stride = round(max(size / side for size, side in zip(canvas.shape[-2:], output.shape[-2:], strict=True)))
            maps.append((stride, output[0].isnan().any(dim=0).cpu()))
        elif output.dim() == 3 and min(output.shape[-2:]) > 1:
            mixed = mixed or bool(output.isnan().all())

    marked = canvas[None].clone()
    marked[..., canvas.shape[-2] // 2, canvas.shape[-1] // 2] = torch.nan
    leaves = [path for path, module in model.named_modules() if module not in excluded and not any(module.children())]
    with recorded(model, leaves, note):
        outputs(model, marked)
    return maps, mixed
