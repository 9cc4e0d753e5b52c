"""One padding mode for a whole network, and layers that no padding frees from positions."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import torch
from torch import nn

from poolbench.pooling.padding import PaddingMode
from poolbench.surgery.borders import Refusal, convolution, dense_window, pair, window_of
from poolbench.surgery.edits import Edits
from poolbench.surgery.layers import Border
from poolbench.surgery.sites import LeftAlone
from poolbench.surgery.trace import Call, Trace

ZERO_PADS = (nn.ZeroPad2d, nn.ConstantPad2d)
OTHER_PADS = (nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)


def change_padding(
    module: nn.Module, graph: Trace, mode: PaddingMode, done: Container[str], edits: Edits
) -> Iterator[LeftAlone]:
    """Add to ``edits`` what gives every layer that pads this mode, apart from the layers at the paths ``done``.

    Layers keep their stride. Yields the layers that cannot be changed.
    """
    for path in dict.fromkeys(call.path for call in graph.calls):
        if path in done:
            continue
        layer, call = module.get_submodule(path), graph.calls_of(path)[0]
        try:
            _change(path, layer, graph, call, mode, edits)
        except Refusal as reason:
            yield LeftAlone(path, f"its padding stays: {reason}")
    yield from _padding_in_code(module, graph, mode)


def _change(path: str, layer: nn.Module, graph: Trace, call: Call, mode: PaddingMode, edits: Edits) -> None:
    if isinstance(layer, (*ZERO_PADS, *OTHER_PADS)):
        if mode != "zeros" or isinstance(layer, OTHER_PADS):
            left, right, top, bottom = layer.padding
            value = layer.value if isinstance(layer, nn.ConstantPad2d) else 0.0
            edits.replace(path, ("border", Border((left, right, top, bottom), mode, value)))
        return
    if not isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) or len(call.inputs) != 1:
        return
    window = window_of(layer, graph, call)
    _, _, height, width = graph.shape(call.inputs[0])
    zeros = not isinstance(layer, nn.Conv2d) or layer.padding_mode == "zeros"
    if not any(window.widths) or (zeros and mode == "zeros"):
        return
    if isinstance(layer, nn.Conv2d):
        changed, border = convolution(layer, (height, width), window, window.widths, mode)
        changed.stride = pair(layer.stride)
        parts: list[tuple[str, nn.Module]] = [("conv", changed)]
        edits.replace(path, *([("border", border)] if border is not None else []), *parts)
    elif len(call.outputs) > 1:
        raise Refusal("it returns more than one tensor")
    else:
        padded = dense_window(layer, window, window.widths, mode)
        padded[-1].stride, padded[-1].ceil_mode = layer.stride, layer.ceil_mode  # type: ignore[assignment]
        edits.replace(path, *(_named(part) for part in padded))


def _named(part: nn.Module) -> tuple[str, nn.Module]:
    return ("border" if isinstance(part, Border) else "layer"), part


def _padding_in_code(module: nn.Module, graph: Trace, mode: PaddingMode) -> Iterator[LeftAlone]:
    """Yield the modules whose own code pads maps."""
    known = (*ZERO_PADS, *OTHER_PADS, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    owners = {
        graph.owner(index)
        for index, op in enumerate(graph.ops)
        if op.name == "pad"
        and len(graph.shape(op.inputs[0])) == 4
        and graph.shape(op.inputs[0]) != graph.shape(op.outputs[0])
    }
    for path in sorted(owners):
        part = module.get_submodule(path)
        if not isinstance(part, known):
            yield LeftAlone(path, f"{type(part).__name__} pads in its own code: its padding stays")


def positional_layers(module: nn.Module, graph: Trace, maps: Mapping[int, torch.Size]) -> Iterator[LeftAlone]:
    """Yield the layers whose outputs depend on positions whatever the padding and the pools.

    These are convolutions that cut more off than a border added before, and reshapings of a map into a vector. ``maps``
    are the values that have positions, unlike those that were pooled globally, and their sizes without borders.
    """
    for call in graph.calls:
        layer = module.get_submodule(call.path)
        of_map = len(call.inputs) == 1 and call.inputs[0] in maps
        if not isinstance(layer, nn.Conv2d) or max(pair(layer.stride)) > 1 or not of_map:
            continue
        given, made = graph.shape(call.inputs[0])[-2:], graph.shape(call.outputs[0])[-2:]
        whole = maps[call.inputs[0]]
        if made[0] < whole[0] or made[1] < whole[1]:
            rows, columns = pair(layer.kernel_size)
            yield LeftAlone(
                call.path,
                f"a {rows}x{columns} convolution without padding reads a map of {given[0]}x{given[1]} place by place: "
                "the output depends on positions",
            )
    for index, op in enumerate(graph.ops):
        reshapes = op.name in ("flatten", "reshape", "view") and op.inputs[0] in maps
        if not reshapes or len(graph.shape(op.inputs[0])) != 4:
            continue
        _, channels, height, width = graph.shape(op.inputs[0])
        if height * width > 1 and tuple(graph.shape(op.outputs[0])) == (1, channels * height * width):
            yield LeftAlone(
                graph.owner(index),
                f"a map of {height}x{width} becomes a vector place by place: the output depends on positions",
            )
