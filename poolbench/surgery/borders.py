"""Padding of layers: what it is, what it becomes with stride 1, and how a layer gets another mode."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from poolbench.pooling.padding import PaddingMode
from poolbench.surgery.layers import Border, Widths
from poolbench.surgery.trace import Call, Trace

Size = tuple[int, int]
Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


class Refusal(Exception):
    """A part of a network that surgery leaves alone; the message is the reason."""


@dataclass(frozen=True)
class Window:
    """Extent of a window (h, w), dilation included, and the padding of the map (left, right, top, bottom)."""

    extent: Size
    widths: Widths

    def dense(self, size_in: Size, size_out: Size, stride: int) -> Widths:
        """Return the padding with which the window at stride 1 gives a map that pools to the same size.

        Every stride-th output is that of the strided layer. A map of stride * ``size_out`` stays as large as it is, so
        that circular shifts of it remain circular shifts.
        """
        left, right, top, bottom = self.widths
        more = []
        for given, wanted, extent, both in zip(
            size_in, size_out, self.extent, (top + bottom, left + right), strict=True
        ):
            dense = given + both - extent + 1
            whole = wanted * stride
            target = whole if whole == given else min(max(dense, whole - stride + 1), whole)
            more.append(target - dense)
        return left, right + more[1], top, bottom + more[0]

    def after_pool(self, size_in: Size, size_out: Size) -> Widths:
        """Return the padding with which the window at stride 1 maps a pooled map of ``size_in`` to ``size_out``.

        Raises Refusal where the map would have to be cropped.
        """
        left, _, top, _ = self.widths
        right = size_out[1] - size_in[1] + self.extent[1] - 1 - left
        bottom = size_out[0] - size_in[0] + self.extent[0] - 1 - top
        if min(right, bottom) < 0:
            raise Refusal("its padding is larger than its kernel")
        return left, right, top, bottom


def pair(value: int | tuple[int, ...]) -> Size:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def window_of(layer: Windowed, graph: Trace, call: Call) -> Window:
    """Return the window of a layer in a traced call; TensorFlow's "same" padding is read from what the call did."""
    kernel, dilation = pair(layer.kernel_size), pair(getattr(layer, "dilation", 1))
    extent = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    for op in graph.ops[call.start : call.stop]:
        if op.name == "pad":
            left, right, top, bottom = op.arguments[0]
            return Window(extent, (left, right, top, bottom))
    if isinstance(layer, nn.Conv2d):
        left, right, top, bottom = layer._reversed_padding_repeated_twice
        return Window(extent, (left, right, top, bottom))
    rows, columns = pair(layer.padding)
    return Window(extent, (columns, columns, rows, rows))


def is_plain(layer: nn.Conv2d) -> bool:
    """Say whether a convolution pads as nn.Conv2d does (subclasses with their own forward may not)."""
    kind = type(layer)
    return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward


def mode_of(layer: nn.Module, wanted: PaddingMode | None) -> PaddingMode:
    """Return the padding mode that a layer gets; without a wish its own."""
    return wanted or cast(PaddingMode, getattr(layer, "padding_mode", "zeros"))


def convolution(
    layer: nn.Conv2d, size: Size, given: Window, widths: Widths, wanted: PaddingMode | None
) -> tuple[nn.Conv2d, Border | None]:
    """Return a copy of a convolution with stride 1 and other padding, and the border to put before it, if any.

    ``size`` (h, w) is that of its map, ``given`` its window. The border is there where nn.Conv2d cannot pad so
    itself. Raises Refusal for a subclass whose padding is unknown.
    """
    mode = mode_of(layer, wanted)
    # The same parameter objects: they may be tied to those of other layers.
    changed = copy.deepcopy(layer, {id(parameter): parameter for parameter in layer.parameters()})
    changed.stride = (1, 1)
    if is_plain(layer) and widths == tuple(layer._reversed_padding_repeated_twice) and _fits(mode, widths, size):
        changed.padding_mode = mode
        return changed, None
    changed = _without_padding(changed)
    if not is_plain(layer):
        _check(layer, changed, size, given)
    return changed, Border(widths, mode) if any(widths) else None


def _fits(mode: PaddingMode, widths: Widths, size: Size) -> bool:
    """Say whether torch pads a map of that size in that mode: it wraps at most once and reflects less than once."""
    reach = {"circular": 0, "reflect": -1}.get(mode)
    return reach is None or (max(widths[:2]) <= size[1] + reach and max(widths[2:]) <= size[0] + reach)


def _without_padding(layer: nn.Conv2d) -> nn.Conv2d:
    if type(layer).__name__ in ("Conv2dSame", "Conv2dSameExport"):
        # timm's convolutions that always pad themselves; apart from that they are plain.
        plain = nn.Conv2d(
            layer.in_channels,
            layer.out_channels,
            pair(layer.kernel_size),
            dilation=pair(layer.dilation),
            groups=layer.groups,
            bias=layer.bias is not None,
        )
        plain.weight, plain.bias = layer.weight, layer.bias
        return plain.train(layer.training)
    layer.padding, layer.padding_mode = (0, 0), "zeros"
    layer._reversed_padding_repeated_twice = [0, 0, 0, 0]
    if hasattr(layer, "same_pad"):
        layer.same_pad = False  # type: ignore[assignment]  # of timm's convolutions with standardised weights
    return layer


def _check(layer: nn.Conv2d, changed: nn.Conv2d, size: Size, given: Window) -> None:
    """Raise Refusal unless the changed convolution, padded and strided as before, computes what the layer did."""
    weight = layer.weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, layer.in_channels, *size, generator=generator).to(weight.device, weight.dtype)
    mode, stride = mode_of(layer, None), pair(layer.stride)
    training = layer.training
    with torch.no_grad():
        expected = layer.eval()(x)
        layer.train(training)
        padded = F.pad(x, given.widths) if mode == "zeros" else F.pad(x, given.widths, mode)
        found = changed(padded)[..., :: stride[0], :: stride[1]]
    close = expected.shape == found.shape and (expected - found).abs().max() <= 1e-3 * expected.abs().max()
    if not close:
        raise Refusal(f"the padding of {type(layer).__name__} is unknown")


def dense_window(
    layer: nn.MaxPool2d | nn.AvgPool2d, given: Window, widths: Widths, wanted: PaddingMode | None
) -> list[nn.Module]:
    """Return the window of a pool with stride 1, after a border where it cannot pad so itself."""
    kernel = pair(layer.kernel_size)
    alike = widths == given.widths and widths[0] == widths[1] and widths[2] == widths[3]
    own = alike and (wanted in (None, "zeros")) and widths[:2] == (pair(layer.padding)[1],) * 2
    padding = pair(layer.padding) if own else (0, 0)
    mode = mode_of(layer, wanted)
    border = [Border(widths, mode, -float("inf") if isinstance(layer, nn.MaxPool2d) else 0.0)]
    if isinstance(layer, nn.MaxPool2d):
        window: nn.Module = nn.MaxPool2d(kernel, 1, padding, layer.dilation)
    else:
        window = nn.AvgPool2d(kernel, 1, padding, False, layer.count_include_pad, layer.divisor_override)
    return [window] if own or not any(widths) else [*border, window]
