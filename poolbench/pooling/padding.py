"""Padding with the modes of nn.Conv2d, for operators that do not pad themselves, and cropping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import UsageError

PaddingMode = Literal["zeros", "circular", "reflect", "replicate"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


def check_padding_mode(mode: str) -> None:
    """Raise UsageError for an unknown padding mode."""
    if mode not in PADDING_MODES:
        raise UsageError(f"unknown padding_mode '{mode}' (there are: {', '.join(PADDING_MODES)})")


def pad(x: Tensor, widths: tuple[int, int, int, int], mode: PaddingMode, value: float = 0.0) -> Tensor:
    """Return x (b, c, h, w) padded by (left, right, top, bottom); mode "zeros" pads with ``value``.

    As in numpy.pad, maps may be smaller than the padding: "circular" and "reflect" repeat as often as needed, and
    "reflect" repeats a side of one pixel.
    """
    if not any(widths):
        return x
    if mode == "zeros":
        return F.pad(x, widths, value=value)
    height, width = x.shape[-2:]
    # torch wraps at most once and reflects at most size - 1 pixels.
    reach = {"circular": 0, "reflect": -1, "replicate": max(widths)}[mode]
    fits = max(widths[:2]) <= width + reach and max(widths[2:]) <= height + reach
    # The gradients of torch's reflect and replicate have no deterministic kernel on a GPU, those of an index have.
    if fits and not (x.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return F.pad(x, widths, mode=mode)
    rows = _sources(height, widths[2], widths[3], mode, x.device)
    columns = _sources(width, widths[0], widths[1], mode, x.device)
    return x.index_select(-2, rows).index_select(-1, columns)


def pad_filter(x: Tensor, reach: int, mode: PaddingMode) -> Tensor:
    """Return x (b, c, h, w) padded by ``reach`` on every side for a low-pass filter of size 2 * reach + 1.

    Real zeros would darken the border: a constant map would fade to 9/16 in its corners under a 3x3 binomial
    filter. In networks that pad with zeros the filter therefore reflects, as published (Zhang 2019) and as in timm;
    a side that is not larger than the padding cannot be reflected and is replicated. Other modes stay as they are.
    """
    widths = (reach, reach, reach, reach)
    if mode != "zeros":
        return pad(x, widths, mode)
    height, width = x.shape[-2:]
    if min(height, width) > reach:
        return pad(x, widths, "reflect")
    rows: PaddingMode = "reflect" if height > reach else "replicate"
    columns: PaddingMode = "reflect" if width > reach else "replicate"
    return pad(pad(x, (0, 0, reach, reach), rows), (reach, reach, 0, 0), columns)


def _sources(size: int, before: int, after: int, mode: PaddingMode, device: torch.device) -> Tensor:
    """Return the source index, from 0 to size - 1, of each of before + size + after positions."""
    position = torch.arange(-before, size + after, device=device)
    if mode == "circular":
        return position.remainder(size)
    if mode == "reflect" and size > 1:
        # A triangle wave: 0 1 2 1 | 0 1 2 1 | ...
        return size - 1 - (position.remainder(2 * size - 2) - (size - 1)).abs()
    return position.clamp(0, size - 1)


def cover(size: Sequence[int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return the padding (0, right, 0, bottom) with which windows of ``kernel`` give ceil(n/stride) outputs."""
    height, width = ((-(-n // stride) - 1) * stride + kernel - n for n in size)
    return (0, max(width, 0), 0, max(height, 0))


class Crop(nn.Module):
    """Drop the last rows and columns, (b, c, h, w) -> (b, c, *size)."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.size[0], : self.size[1]]
