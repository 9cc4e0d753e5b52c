"""Where a network downsamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from poolbench.surgery.trace import Call, Trace, trace

Kind = Literal["convolution", "max_pool", "avg_pool", "patch_embedding"]
DOWNSAMPLING = {"conv2d", "max_pool2d", "avg_pool2d", "interpolate"}
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Site:
    """A downsampling of a network: a module whose output has a ``stride``-th of the rows and columns.

    ``path`` is that of the module in the original network, such as "layer2.0.conv1". ``shape_in`` and ``shape_out``
    are (c, h, w). ``is_stem``: it runs before the first block of the network, as the strided convolution and
    the max pool at the start of a ResNet do.
    """

    path: str
    kind: Kind
    stride: int
    shape_in: tuple[int, int, int]
    shape_out: tuple[int, int, int]
    is_stem: bool


@dataclass(frozen=True)
class LeftAlone:
    """A module at ``path`` that stays as it is, and why."""

    path: str
    reason: str


def find_sites(module: nn.Module, in_shape: tuple[int, int, int]) -> list[Site]:
    """Return the downsamplings of a network for images (c, h, w), in order of execution.

    Convolutions and max and average pools with a stride count, subclasses included. Raises UsageError for a shape
    that the network does not take.
    """
    return sites_of(module, trace(module, in_shape))[0]


def sites_of(module: nn.Module, graph: Trace) -> tuple[list[Site], list[LeftAlone]]:
    """Return the sites in a traced network, and the downsamplings that are none with the reasons."""
    calls: list[Call] = []
    left: dict[str, LeftAlone] = {}
    for call in graph.calls:
        part = module.get_submodule(call.path)
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and max(_pair(part.stride)) > 1:
            reason = _unfit(part, graph, call)
            if reason is None:
                calls.append(call)
            else:
                left[call.path] = LeftAlone(call.path, reason)
    stem_end = _stem_end(module, graph, calls)
    found = []
    for call in calls:
        part = module.get_submodule(call.path)
        assert isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        shape_in, shape_out = (_chw(graph, values[0]) for values in (call.inputs, call.outputs))
        is_stem = call.start < stem_end or any("stem" in name for name in call.path.split("."))
        found.append(
            Site(call.path, _kind(module, part, graph, call), _pair(part.stride)[0], shape_in, shape_out, is_stem)
        )
    return found, [*left.values(), *_functional(module, graph)]


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _chw(graph: Trace, value: int) -> tuple[int, int, int]:
    _, channels, height, width = graph.shape(value)
    return channels, height, width


def _unfit(part: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d, graph: Trace, call: Call) -> str | None:
    """Return why a strided module cannot be replaced whatever the pool; None if it can."""
    strides = _pair(part.stride)
    if len(set(strides)) > 1:
        return f"its strides differ: {strides[0]} and {strides[1]}"
    if not graph.runs_once(call.path):
        return f"it runs {len(graph.calls_of(call.path))} times in a pass"
    if len(call.inputs) != 1 or len(call.outputs) != 1 or len(graph.shape(call.inputs[0])) != 4:
        return "it maps more than one tensor (b, c, h, w) to another"
    return None


def _kind(module: nn.Module, part: nn.Module, graph: Trace, call: Call) -> Kind:
    if isinstance(part, nn.MaxPool2d):
        return "max_pool"
    if isinstance(part, nn.AvgPool2d):
        return "avg_pool"
    assert isinstance(part, nn.Conv2d)
    if part.kernel_size == part.stride:
        owner = module.get_submodule(call.path.rpartition(".")[0])
        tokens = [
            op
            for op in graph.consumers[call.outputs[0]]
            if graph.ops[op].outputs and len(graph.shape(graph.ops[op].outputs[0])) == 3
        ]
        if tokens or "PatchEmbed" in type(owner).__name__:
            return "patch_embedding"
    return "convolution"


def _stem_end(module: nn.Module, graph: Trace, sites: Sequence[Call]) -> int:
    """Return the number of the first function after the stem: the start of the first block.

    A block is a module with at least two layers that is neither a plain container nor around the first convolution.
    Where no downsampling follows it, it is a part of the classifier (VGG): the stem is then the first convolution.
    """
    first_convolution = next((i for i, op in enumerate(graph.ops) if op.name == "conv2d"), 0)
    for call in graph.calls:
        part = module.get_submodule(call.path)
        layers = sum(isinstance(inner, nn.Conv2d | nn.Linear) for inner in part.modules())
        if layers >= 2 and type(part) not in CONTAINERS and call.start > first_convolution:
            return call.start if any(site.start >= call.start for site in sites) else first_convolution + 1
    return first_convolution + 1


def _functional(module: nn.Module, graph: Trace) -> Sequence[LeftAlone]:
    """Return the modules whose own code makes maps smaller, apart from layers and from global pools."""
    found: dict[str, LeftAlone] = {}
    for index, op in enumerate(graph.ops):
        if op.name not in DOWNSAMPLING or not op.inputs or not op.outputs:
            continue
        given, made = graph.shape(op.inputs[0]), graph.shape(op.outputs[0])
        if len(given) != 4 or len(made) != 4 or 2 * made[-1] > given[-1] + 1 or tuple(made[-2:]) == (1, 1):
            continue
        path = graph.owner(index)
        part = module.get_submodule(path)
        if not isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            reason = f"{type(part).__name__} calls {op.name} in its own code: there is no layer to replace"
            found[path] = LeftAlone(path, reason)
    return list(found.values())
