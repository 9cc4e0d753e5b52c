"""The canvas map of any network: a published checkpoint, a model of timm, or a module of the user."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import MissingData, UsageError
from poolbench.engine import Normalize
from poolbench.engine.state_dicts import check_state_dict, plain_load
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench.plugins import import_code
from poolbench.registry import TIMM, architectures

# Indices of the convolutions in the published networks, by number of pooling layers.
PUBLISHED_LAYERS = {0: (0, 2, 4), 1: (0, 3, 5), 2: (0, 3, 6)}


@dataclass(frozen=True)
class ShiftMap:
    """A network's map for one class: ``log_odds`` (rows, columns), its parts if it has an interior, and its numbers.

    The positions are ``step`` pixels apart. On a coarse grid only a periodic network has parts.
    """

    log_odds: Tensor
    period: int
    target: int
    statistics: shift.MapStatistics
    parts: shift.MapParts | None
    step: int = 1

    def numbers(self) -> dict[str, float | int]:
        """Return the map in numbers; ``interior_margin`` in pixels, ranges and deviations of parts in logits."""
        probability = torch.sigmoid(self.log_odds)
        found: dict[str, float | int] = {
            "class": self.target,
            "total_stride": self.period,
            "probability_min": float(probability.min()),
            "probability_max": float(probability.max()),
            "flips": self.statistics.flips,
        }
        if self.parts is not None:
            found |= {
                "interior_margin": self.parts.margin * self.step,
                "interior_values": distinct(self.parts.phases),
                "interior_range": self.parts.phase_range,
                "phase_deviation": self.parts.phase_deviation,
                "boundary_deviation": self.parts.boundary_deviation,
                "noise_deviation": self.parts.noise_deviation,
            }
        return found


def distinct(values: Tensor) -> int:
    """Return the number of different values (...); differences below 1e-5 of the largest value are rounding."""
    ordered = values.flatten().sort().values
    return 1 + int((ordered.diff() > 1e-5 * float(ordered.abs().max())).sum())


def shift_map(
    model: nn.Module,
    channels: int,
    canvas: int,
    half_size: int,
    target: int | None = None,
    exhaustive: bool = False,
    step: int = 1,
    on_plan: Callable[[shift.MapPlan], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShiftMap:
    """Return the map of a white square of 2 * half_size + 1 pixels at every ``step``-th pixel of a black canvas.

    Pixels are in [0, 1]. ``target`` is the class whose log-odds the map holds (None: class 1 of a network with one
    logit, otherwise the class predicted most often). ``on_plan`` gets the plan before the map is computed,
    ``progress`` the forward passes done and expected. Raises UsageError for a class the network does not have and
    for a canvas it does not take.
    """
    device = next(model.parameters()).device
    black = torch.zeros(channels, canvas, canvas, device=device)
    stamp = torch.ones(channels, 2 * half_size + 1, 2 * half_size + 1, device=device)
    classes = max(2, _logits(model, black))
    if target is not None and not 0 <= target < classes:
        raise UsageError(f"the network has {classes} classes, got class {target}; give one of 0 to {classes - 1}")
    period = shift.total_stride(model, black)
    plan = shift.plan_map(model, stamp, black, period, exhaustive, step)
    if on_plan is not None:
        on_plan(plan)
    outputs = shift.canvas_map(model, stamp, black, period, exhaustive, step, progress).cpu()
    if target is None:
        target = 1 if outputs.shape[-1] == 1 else int(predictions(outputs).flatten().mode().values)
    log_odds = shift.log_odds(outputs, target)
    # On a coarse grid a period can be a single position, and any two equal neighbours would pass for an interior.
    separable = plan.periodic or step == 1
    parts = shift.decompose(log_odds, period // math.gcd(period, step)) if separable else None
    return ShiftMap(log_odds, period, target, shift.map_statistics(outputs, target), parts, step)


def _logits(model: nn.Module, canvas: Tensor) -> int:
    """Return the number of logits for a canvas (c, h, w); raise UsageError if the network does not take it."""
    shape = "x".join(map(str, canvas.shape))
    try:
        logits = shift.outputs(model, canvas[None])
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UsageError(
            f"the network does not take images of {shape}: {reason}; give another --canvas or --channels"
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UsageError("the network does not return logits (b, classes); give a classifier")
    return logits.shape[1]


def published_network(file: Path, num_pooling: int) -> nn.Module:
    """Return the network of a checkpoint of analyze_pooling (Scheidl 2022), for pixels (b, 1, h, w) in [0, 1].

    Raises UsageError for a file that is not such a checkpoint or has another number of pooling layers.
    """
    state = _tensors(file)
    layers = PUBLISHED_LAYERS.get(num_pooling)
    if layers is None:
        raise UsageError(f"the published networks have 0, 1 or 2 pooling layers, got {num_pooling}")
    expected = {f"net.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    if set(state) != expected:
        fitting = [
            count
            for count, others in PUBLISHED_LAYERS.items()
            if set(state) == {f"net.{layer}.{part}" for layer in others for part in ("weight", "bias")}
        ]
        advice = (
            f"it has {fitting[0]}: give --num-pooling {fitting[0]}"
            if fitting
            else "it is not one of analyze_pooling's networks: give others with --model"
        )
        raise UsageError(f"'{file}' does not hold a network with {num_pooling} pooling layers; {advice}")
    network = create_model("shape_net", (1, 224, 224), 2, "max", "avg", num_pooling=num_pooling)
    renamed = {
        f"conv{index}.{part}": state[f"net.{layer}.{part}"]
        for index, layer in enumerate(layers, start=1)
        for part in ("weight", "bias")
    }
    try:
        network.load_state_dict(renamed)
    except RuntimeError as error:
        raise UsageError(f"'{file}' does not fit: {' '.join(str(error).split())}") from error
    # The published input is the pixel (0 to 255) minus 127.5.
    return nn.Sequential(OrderedDict(normalize=Normalize((0.5,), (1 / 255,)), network=network)).eval()


def _tensors(file: Path) -> Mapping[str, Tensor]:
    try:
        state = plain_load(file)
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror}; give the checkpoint's path") from error
    except Exception as error:
        raise UsageError(
            f"'{file}' is not a file of torch.save with plain tensors: {str(error).splitlines()[0]}"
        ) from error
    return check_state_dict(state, file)


def named_network(spec: str, pretrained: bool = False) -> nn.Module:
    """Return the network that ``timm:NAME``, ``package.module:NAME`` or ``file.py:NAME`` names, in eval mode.

    Its input are pixels (b, c, h, w) in [0, 1]. A model of timm gets its own normalisation in front. In Python code,
    NAME is a module, or a function that returns one when called without arguments. Raises UsageError for a name that
    does not exist or is not a network, and MissingData for weights that cannot be fetched.
    """
    if spec.startswith(TIMM):
        return _timm_network(architectures.check(spec).removeprefix(TIMM), pretrained)
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise UsageError(f"a model is timm:NAME, package.module:NAME or file.py:NAME, got '{spec}'")
    found: Any = getattr(import_code(path), name, None)
    if found is None:
        raise UsageError(f"'{path}' has no '{name}'; give a module or a function that returns one")
    try:
        network = found if isinstance(found, nn.Module) else found()
    except TypeError as error:
        raise UsageError(f"'{name}' of '{path}' cannot be called without arguments: {error}") from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"'{spec}' gives a {type(network).__name__}, not a torch.nn.Module")
    return network.eval()


def _timm_network(name: str, pretrained: bool) -> nn.Module:
    import timm

    try:
        network = timm.create_model(name, pretrained=pretrained)
    except Exception as error:
        if not pretrained:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingData(f"the weights of timm:{name} cannot be fetched: {reason}") from error
    config: Any = network.pretrained_cfg
    normalize = Normalize(config["mean"], config["std"])
    return nn.Sequential(OrderedDict(normalize=normalize, network=network)).eval()


def input_channels(model: nn.Module) -> int:
    """Return the number of input channels of the network's first convolution; raise UsageError if it has none."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise UsageError("the network has no convolution that shows the number of input channels; give --channels")


def input_size(model: nn.Module) -> int:
    """Return the image size that a model of timm was made for, in pixels; 224 for others (the published canvas)."""
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        if config:
            return int(config["input_size"][-1])
    return 224
