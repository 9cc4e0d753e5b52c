"""Padding by mode, as convolutions name it, for operators that have no padding of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from poolbench.core import UsageError

PaddingMode = Literal["zeros", "circular", "reflect", "replicate"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


def check_padding_mode(mode: str) -> None:
    """Raise UsageError unless there is a padding mode of that name."""
    if mode not in PADDING_MODES:
        raise UsageError(f"unknown padding_mode '{mode}' (there are: {', '.join(PADDING_MODES)})")


def pad(x: Tensor, widths: tuple[int, int, int, int], mode: PaddingMode, value: float = 0.0) -> Tensor:
    """Return x (b, c, h, w) padded by (left, right, top, bottom); mode "zeros" pads with ``value``."""
    if not any(widths):
        return x
    if mode == "zeros":
        return F.pad(x, widths, value=value)
    return F.pad(x, widths, mode=mode)


def cover(size: Sequence[int], kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Return the (0, right, 0, bottom) padding with which windows of ``kernel`` give ceil(n/stride) outputs."""
    height, width = ((-(-n // stride) - 1) * stride + kernel - n for n in size)
    return (0, max(width, 0), 0, max(height, 0))
