"""A network as a program: a list of typed steps with their weights, which a page evaluates without torch.

The interpreter is ``templates/live_steps.js`` of ``poolbench_tracking``; docs/live.md lists the kinds of steps.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures.blocks import ClassMaps, PooledFeatures
from poolbench.architectures.fashion_convnet import XavierConv2d, XavierLinear
from poolbench.core import UsageError
from poolbench.engine import Normalize
from poolbench.pooling import heads, local, lowpass, polyphase
from poolbench.pooling.base import Head, Pool
from poolbench.pooling.padding import Crop

Settings = dict[str, Any]
Widths = Sequence[int]


@dataclass(frozen=True)
class Step:
    """One operation on a map (c, h, w) or on a vector (c,).

    ``kind`` names the operation, ``path`` the module it comes from, ``settings`` are plain JSON types. A weight is
    {"shape": [...], "data": base64 of little-endian float32}.
    """

    kind: str
    path: str
    settings: Mapping[str, Any]

    def config(self) -> Settings:
        """Return the step as plain JSON types."""
        return {"kind": self.kind, "path": self.path, **self.settings}


@dataclass(frozen=True)
class Program:
    """A network that maps pixels (c, h, w) in [0, 1] to logits (outputs,).

    ``pooled`` is the index of the last step of the first local pool (None without one), ``maps`` that of the step whose
    output enters the head. ``class_maps`` says whether those maps have a channel per logit.
    """

    in_shape: tuple[int, int, int]
    outputs: int
    steps: tuple[Step, ...]
    pooled: int | None
    maps: int
    class_maps: bool
    parameters: int

    def config(self) -> Settings:
        """Return the program as plain JSON types."""
        return {
            "shape": list(self.in_shape),
            "outputs": self.outputs,
            "steps": [step.config() for step in self.steps],
            "pooled": self.pooled,
            "maps": self.maps,
            "classMaps": self.class_maps,
            "parameters": self.parameters,
        }


def export_program(model: nn.Module, in_shape: tuple[int, int, int]) -> Program:
    """Return the program of a network, which is put into eval mode; its input are pixels (b, *in_shape) in [0, 1].

    The network is a (nested) ``nn.Sequential`` of layers with a step, one of which is a head. Raises UsageError that
    names every layer without a step, and for a network without a head.
    """
    model.eval()
    layers = list(_layers(model))
    if unknown := [
        f"{path or 'the network'} ({type(module).__name__})" for path, module in layers if not _known(module)
    ]:
        raise UsageError(f"a page cannot evaluate {', '.join(unknown)}; it has steps for {', '.join(supported())}")
    steps: list[Step] = []
    pooled = maps = None
    for path, module in layers:
        if isinstance(module, Head):
            maps = len(steps) - 1
        steps += [Step(kind, path, settings) for kind, settings in STEPS[type(module)](module)]
        if isinstance(module, Pool) and not module.keeps_size and pooled is None:
            pooled = len(steps) - 1
    if maps is None:
        raise UsageError("the network has no head of poolbench, so there are no maps to show; give one that has")
    with torch.no_grad():
        outputs = model(torch.zeros(1, *in_shape)).shape[1]
    return Program(
        in_shape,
        outputs,
        tuple(steps),
        pooled,
        maps,
        class_maps=any(isinstance(module, ClassMaps) for module in model.modules()),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def supported() -> list[str]:
    """Return the names of the layers that have a step, sorted."""
    return sorted({module.__name__ for module in STEPS})


def _known(module: nn.Module) -> bool:
    # The exact type: a subclass may compute something else.
    return type(module) in STEPS


def _layers(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, layer) in the order in which a sequential network applies them."""
    if type(module) not in (nn.Sequential, ClassMaps, PooledFeatures):
        yield path, module
        return
    for name, part in module.named_children():
        yield from _layers(part, f"{path}.{name}".lstrip("."))


def _weight(tensor: Tensor) -> Settings:
    """Return a tensor as {"shape", "data"}."""
    content = tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes()
    return {"shape": list(tensor.shape), "data": base64.b64encode(content).decode()}


def _conv(module: nn.Conv2d, mode: str | None = None, pad: Widths | None = None) -> Iterator[tuple[str, Settings]]:
    yield (
        "conv",
        {
            "weight": _weight(module.weight),
            "bias": None if module.bias is None else _weight(module.bias),
            "stride": list(module.stride),
            "dilation": list(module.dilation),
            "groups": module.groups,
            "pad": list(pad or _widths(module)),
            "mode": mode or module.padding_mode,
        },
    )


def _widths(module: nn.Conv2d) -> Widths:
    """Return the padding of a convolution as left, right, top, bottom."""
    if module.padding == "valid":
        return (0, 0, 0, 0)
    if module.padding == "same":
        down, across = (d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True))
        return (across // 2, across - across // 2, down // 2, down - down // 2)
    down, across = (int(width) for width in module.padding)
    return (across, across, down, down)


def _strided_conv(module: local.StridedConv) -> Iterator[tuple[str, Settings]]:
    yield from _conv(module, module.border, (1, 1, 1, 1))


def _space_to_depth(module: local.SpaceToDepth) -> Iterator[tuple[str, Settings]]:
    # Rearranging windows into channels and a 1x1 convolution are one convolution with the windows as kernel.
    stride, conv = module.stride, module.conv
    weight = conv.weight.unflatten(1, (-1, stride * stride)).reshape(conv.out_channels, -1, stride, stride)
    settings: Settings = next(_conv(conv))[1]
    changes = {"weight": _weight(weight), "stride": [stride, stride], "mode": module.padding_mode, "cover": stride}
    yield "conv", {**settings, **changes}


def _linear(module: nn.Linear) -> Iterator[tuple[str, Settings]]:
    bias = None if module.bias is None else _weight(module.bias)
    yield "linear", {"weight": _weight(module.weight), "bias": bias}


def _affine(scale: Tensor, shift: Tensor) -> tuple[str, Settings]:
    """Return x * scale + shift per channel."""
    return "affine", {"scale": _weight(scale.flatten()), "shift": _weight(shift.flatten())}


def _normalize(module: Normalize) -> Iterator[tuple[str, Settings]]:
    mean, std = module.mean.double(), module.std.double()
    yield _affine(1 / std, -mean / std)


def _batch_norm(module: nn.BatchNorm2d | nn.BatchNorm1d) -> Iterator[tuple[str, Settings]]:
    if module.running_mean is None or module.running_var is None:
        raise UsageError("a page cannot evaluate a BatchNorm without running statistics; train one that tracks them")
    scale = (module.running_var.double() + module.eps).rsqrt()
    shift = -module.running_mean.double() * scale
    if module.affine:
        weight, bias = module.weight.double(), module.bias.double()
        scale, shift = scale * weight, shift * weight + bias
    yield _affine(scale, shift)


def _activation(function: str, **settings: float) -> Callable[[nn.Module], Iterator[tuple[str, Settings]]]:
    def steps(module: nn.Module) -> Iterator[tuple[str, Settings]]:
        values = {name: getattr(module, name) for name in settings}
        yield "activation", {"function": function, **values}

    return steps


def _nothing(module: nn.Module) -> Iterator[tuple[str, Settings]]:
    yield from ()


def _crop(module: Crop) -> Iterator[tuple[str, Settings]]:
    yield "crop", {"size": list(module.size)}


def _window(kind: str, size: int, stride: int, mode: str, pad: Widths | None = None) -> tuple[str, Settings]:
    """Return the maximum ("max") or mean ("mean") of windows; ``pad`` None completes the last windows.

    Mode "zeros" leaves out what lies outside the map.
    """
    return kind, {"size": size, "stride": stride, "mode": mode, "pad": None if pad is None else list(pad)}


def _max(module: local.MaxPool) -> Iterator[tuple[str, Settings]]:
    yield _window("max", module.stride, module.stride, module.padding_mode)


def _max3(module: local.OverlappingMaxPool) -> Iterator[tuple[str, Settings]]:
    yield _window("max", 3, module.stride, module.padding_mode, (1, 1, 1, 1))


def _avg(module: local.AvgPool) -> Iterator[tuple[str, Settings]]:
    yield _window("mean", module.stride, module.stride, module.padding_mode)


def _haar(module: lowpass.HaarLowBand) -> Iterator[tuple[str, Settings]]:
    yield _window("mean", module.stride, module.stride, module.padding_mode)
    yield "activation", {"function": "scale", "factor": module.stride}


def _decimate(module: local.Decimate) -> Iterator[tuple[str, Settings]]:
    yield "decimate", {"stride": module.stride}


def _blur(module: lowpass.BinomialBlur) -> Iterator[tuple[str, Settings]]:
    row = module.kernel[0, 0].double().sum(0)
    yield "blur", {"row": _weight(row), "stride": module.stride, "mode": module.padding_mode}


def _dense_max(mode: str) -> tuple[str, Settings]:
    return _window("max", 2, 1, mode, (0, 1, 0, 1))


def _max_blur(module: lowpass.MaxBlur) -> Iterator[tuple[str, Settings]]:
    yield _dense_max(module.padding_mode)
    yield from _blur(module.blur)


def _polyphase(module: polyphase.LargestComponent) -> Iterator[tuple[str, Settings]]:
    match module.before:
        case lowpass.MaxBlur():
            yield from _max_blur(module.before)
        case lowpass.BinomialBlur():
            yield from _blur(module.before)
        case polyphase.DenseMaxFilter():
            yield _dense_max(module.before.padding_mode)
    yield "polyphase", {"stride": module.stride}


def _head(function: str) -> Callable[[nn.Module], Iterator[tuple[str, Settings]]]:
    def steps(module: nn.Module) -> Iterator[tuple[str, Settings]]:
        settings: Settings = {"function": function}
        if isinstance(module, heads.GlobalGem):
            settings |= {"p": module.p.item(), "eps": module.eps}
        if isinstance(module, heads.GlobalLse):
            settings["r"] = module.log_r.exp().item()
        if isinstance(module, heads.GlobalTopK):
            settings |= {"k": module.k, "share": module.share}
        yield "head", settings

    return steps


STEPS: dict[type[nn.Module], Callable[[Any], Iterator[tuple[str, Settings]]]] = {
    nn.Conv2d: _conv,
    XavierConv2d: _conv,
    nn.Linear: _linear,
    XavierLinear: _linear,
    Normalize: _normalize,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: _activation("relu"),
    nn.ELU: _activation("elu", alpha=1.0),
    nn.Sigmoid: _activation("sigmoid"),
    nn.Identity: _nothing,
    nn.Dropout: _nothing,
    nn.Dropout2d: _nothing,
    Crop: _crop,
    local.MaxPool: _max,
    local.OverlappingMaxPool: _max3,
    local.AvgPool: _avg,
    local.Decimate: _decimate,
    local.Dilated: _nothing,
    local.StridedConv: _strided_conv,
    local.SpaceToDepth: _space_to_depth,
    lowpass.Blur3: _blur,
    lowpass.Blur5: _blur,
    lowpass.Blur7: _blur,
    lowpass.MaxBlur3: _max_blur,
    lowpass.MaxBlur5: _max_blur,
    lowpass.HaarLowBand: _haar,
    polyphase.AdaptivePolyphase: _polyphase,
    polyphase.BlurredAdaptivePolyphase: _polyphase,
    polyphase.MaxAdaptivePolyphase: _polyphase,
    polyphase.MaxBlurredAdaptivePolyphase: _polyphase,
    heads.GlobalAvg: _head("avg"),
    heads.GlobalMax: _head("max"),
    heads.GlobalAvgMax: _head("avgmax"),
    heads.GlobalCatAvgMax: _head("catavgmax"),
    heads.GlobalGem: _head("gem"),
    heads.GlobalL2: _head("l2"),
    heads.GlobalLse: _head("lse"),
    heads.GlobalTopK: _head("top_k"),
    heads.GlobalMedian: _head("median"),
    heads.GlobalSoftmax: _head("softmax_weighted"),
    heads.Flatten: _head("flatten"),
}
"""Layer -> function from the layer to its steps as (kind, settings)."""
