"""The canvas map of one network, whoever trained it: the command ``shift-map``."""

from __future__ import annotations

import importlib
import importlib.util
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import UsageError
from poolbench.engine import Normalize
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench.registry import TIMM

# Where the convolutions stand in the published networks, by number of pooling layers.
PUBLISHED_LAYERS = {0: (0, 2, 4), 1: (0, 3, 5), 2: (0, 3, 6)}


@dataclass(frozen=True)
class ShiftMap:
    """A network's map for one class: ``log_odds`` (h, w), its parts where it has an interior, and its numbers."""

    log_odds: Tensor
    period: int
    target: int
    statistics: shift.MapStatistics
    parts: shift.MapParts | None

    def numbers(self) -> dict[str, float | int]:
        """Return what there is to say in figures."""
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
                "interior_margin": self.parts.margin,
                "interior_values": distinct(self.parts.phases),
                "interior_range": self.parts.phase_range,
                "phase_deviation": self.parts.phase_deviation,
                "boundary_deviation": self.parts.boundary_deviation,
                "noise_deviation": self.parts.noise_deviation,
            }
        return found


def distinct(values: Tensor) -> int:
    """Return how many different values there are beyond rounding: 1e-5 of the largest one."""
    ordered = values.flatten().sort().values
    return 1 + int((ordered.diff() > 1e-5 * float(ordered.abs().max())).sum())


def shift_map(
    model: nn.Module, channels: int, canvas: int, half_size: int, target: int | None = None, exhaustive: bool = False
) -> ShiftMap:
    """Return the map of a white square of 2 * half_size + 1 pixels on a black canvas, pixels in [0, 1].

    ``target`` is the class whose log-odds the map holds; without one it is class 1 for a network with
    one logit, else the class decided for most often.
    """
    device = next(model.parameters()).device
    black = torch.zeros(channels, canvas, canvas, device=device)
    stamp = torch.ones(channels, 2 * half_size + 1, 2 * half_size + 1, device=device)
    period = shift.total_stride(model, black)
    outputs = shift.canvas_map(model, stamp, black, period, exhaustive).cpu()
    decisions = predictions(outputs)
    classes = max(2, outputs.shape[-1])
    if target is None:
        target = 1 if outputs.shape[-1] == 1 else int(decisions.flatten().mode().values)
    if not 0 <= target < classes:
        raise UsageError(f"the network has {classes} classes, got class {target}; give one of 0 to {classes - 1}")
    log_odds = shift.log_odds(outputs, target)
    return ShiftMap(log_odds, period, target, shift.map_statistics(outputs, target), shift.decompose(log_odds, period))


def published_network(file: Path, num_pooling: int) -> nn.Module:
    """Return the network of a checkpoint of analyze_pooling (Scheidl 2022), for pixels (b, 1, h, w) in [0, 1].

    Raises UsageError for a file that is no such checkpoint or has another number of pooling layers.
    """
    state = _tensors(file)
    layers = PUBLISHED_LAYERS.get(num_pooling)
    if layers is None:
        raise UsageError(f"the published networks have 0, 1 or 2 pooling layers, got {num_pooling}")
    expected = {f"net.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    if set(state) != expected:
        fitting = [
            count
            for count, own in PUBLISHED_LAYERS.items()
            if set(state) == {f"net.{layer}.{part}" for layer in own for part in ("weight", "bias")}
        ]
        advice = (
            f"it has {fitting[0]}: give --num-pooling {fitting[0]}"
            if fitting
            else "it is none of analyze_pooling's networks: for others give --model"
        )
        raise UsageError(f"'{file}' has no network with {num_pooling} pooling layers; {advice}")
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
    # The published input is the pixel in 0..255 less 127.5.
    return nn.Sequential(OrderedDict(normalize=Normalize((0.5,), (1 / 255,)), network=network)).eval()


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"cannot read '{file}': {error.strerror}; give the checkpoint's path") from error
    except Exception as error:
        raise UsageError(
            f"'{file}' is no file of torch.save with plain tensors: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"'{file}' holds no state dict; store model.state_dict()")
    return state


def named_network(spec: str, pretrained: bool = False) -> nn.Module:
    """Return the network that ``timm:NAME``, ``package.module:NAME`` or ``file.py:NAME`` names, in eval mode.

    A timm model gets its own normalisation, so that pixels in [0, 1] go in; NAME of a Python path is a
    module, or a function that returns one when called without arguments, and gets pixels as they are.
    Raises UsageError where there is none.
    """
    if spec.startswith(TIMM):
        return _timm_network(spec.removeprefix(TIMM), pretrained)
    path, _, name = spec.rpartition(":")
    if not path or not name:
        raise UsageError(f"a model is timm:NAME, package.module:NAME or file.py:NAME, got '{spec}'")
    found: Any = getattr(_python_module(path), name, None)
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

    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'; see timm.list_models()")
    network = timm.create_model(name, pretrained=pretrained)
    config: Any = network.pretrained_cfg
    normalize = Normalize(config["mean"], config["std"])
    return nn.Sequential(OrderedDict(normalize=normalize, network=network)).eval()


def _python_module(path: str) -> Any:
    if not path.endswith(".py"):
        try:
            return importlib.import_module(path)
        except ImportError as error:
            raise UsageError(f"cannot import '{path}': {error}; give package.module or a file's path") from error
    if not Path(path).is_file():
        raise UsageError(f"there is no file '{path}'; give package.module:NAME or file.py:NAME")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' cannot be imported as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"'{path}' cannot be imported: {type(error).__name__}: {error}") from error
    return module


def input_channels(model: nn.Module) -> int:
    """Return the number of channels that the first convolution of a network takes."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise UsageError("the model has no convolution to tell its input channels; give --channels")


def input_size(model: nn.Module) -> int:
    """Return the image size that a timm model was made for, 224 for others (the published canvas)."""
    for module in model.modules():
        config = getattr(module, "pretrained_cfg", None)
        if config:
            return int(config["input_size"][-1])
    return 224
