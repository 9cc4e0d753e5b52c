"""The stages of a network, one per size of its maps, and what the units of each stage do over some images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poolbench.inspect.taps import Tap, read
from poolbench.measures.maps import dead_units, duplicate_units
from poolbench.surgery.activations import NONLINEAR
from poolbench.surgery.trace import Call, Trace, trace

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Stage:
    """The maps of one size: the last activation before maps get smaller, of ``shape`` (c, h, w), read at ``tap``.

    ``is_activation`` is False where no module gives the maps after an activation: they are then the last ones of
    this size that a module gives. ``runs_once``: the module runs once in a pass.
    """

    tap: Tap
    shape: Shape
    is_activation: bool
    runs_once: bool


@dataclass(frozen=True)
class Units:
    """The units of a stage over ``images`` images; ``order`` lists all units, the most active first.

    Activity is the mean absolute value over images and positions. ``dead`` and ``duplicates`` are unit numbers (see
    ``poolbench.measures.maps``).
    """

    images: int
    order: tuple[int, ...]
    dead: tuple[int, ...]
    duplicates: tuple[int, ...]


def find_stages(network: nn.Module, in_shape: Shape) -> list[Stage]:
    """Return the stages of a network for images (c, h, w), in order of execution; [] for a network without maps.

    A map is a tensor (b, c, h, w) of more than one position with the proportions of the image, made at or after the
    first convolution. Raises UsageError for images that the network does not take.
    """
    graph = trace(network, in_shape)
    first = next((index for index, op in enumerate(graph.ops) if op.name == "conv2d"), len(graph.ops))
    # A size that only pools and crops give has nothing of its own.
    convolved = {tuple(graph.shape(op.outputs[0])[2:]) for op in graph.ops if op.name == "conv2d"}
    best: dict[tuple[int, int], tuple[bool, int, int]] = {}
    for call in graph.calls:
        for value in call.outputs if len(call.outputs) == 1 else ():
            made = graph.producers.get(value, -1)
            if made >= first and is_map(tuple(graph.shape(value)), in_shape):
                size = (graph.shape(value)[2], graph.shape(value)[3])
                if size not in convolved:
                    continue
                best[size] = max(best.get(size, (False, -1, -1)), (_is_activated(graph, call), made, value))
    ordered = sorted(best.values(), key=lambda one: one[1])
    return [_stage(graph, value, active) for active, _, value in ordered]


def is_map(shape: tuple[int, ...], in_shape: Shape) -> bool:
    """Return whether a tensor of this shape is a map (b, c, h, w) of an image (c, h, w): of its proportions.

    Some networks keep channels last: their (b, h, w, c) is told by its proportions.
    """
    if len(shape) != 4 or shape[2] * shape[3] < 2:
        return False
    height, width = in_shape[1:]
    return abs(shape[2] * width - shape[3] * height) <= max(height, width)


def _is_activated(graph: Trace, call: Call) -> bool:
    """Return whether the last function that made the output is an activation, or the module consists of one."""
    names = [name.removesuffix("_") if not name.startswith("__") else name for name in graph.names(call)]
    made = graph.ops[graph.producers[call.outputs[0]]].name.removesuffix("_")
    # An activation of several functions, such as x * sigmoid(x).
    return made in NONLINEAR or (0 < len(names) <= 3 and bool(NONLINEAR & set(names)) and "conv2d" not in names)


def _stage(graph: Trace, value: int, active: bool) -> Stage:
    """Return the stage whose maps are a value: read at the outermost module that gives it and runs once, if any."""
    givers = [call for call in graph.calls if call.outputs == (value,)]
    call = next((call for call in givers if graph.runs_once(call.path)), givers[-1])
    _, channels, height, width = graph.shape(value)
    tap = Tap(call.path, graph.calls_of(call.path).index(call))
    return Stage(tap, (channels, height, width), active, graph.runs_once(call.path))


def stage_maps(network: nn.Module, batches: Iterable[Tensor], stages: Sequence[Stage]) -> list[Tensor]:
    """Return the maps (n, c, h, w) of each stage for batches of images (b, c, h, w), on the CPU."""
    taps = [stage.tap for stage in stages]
    found = [[maps.cpu() for maps in read(network, batch, taps)[1]] for batch in batches]
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def measure_units(maps: Tensor) -> Units:
    """Return what the units of maps (n, c, h, w) do."""
    order = maps.abs().mean(dim=(0, 2, 3)).argsort(descending=True, stable=True)
    dead, copies = (mask.nonzero().flatten().tolist() for mask in (dead_units(maps), duplicate_units(maps)))
    return Units(len(maps), tuple(order.tolist()), tuple(dead), tuple(copies))
