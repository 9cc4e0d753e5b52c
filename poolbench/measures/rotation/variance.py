"""Variance of activations over rotation angles relative to their variance over images, in one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.geometry import Fill
from poolbench.measures.classification import predictions
from poolbench.measures.rotation.inputs import (
    AGGREGATIONS,
    Mask,
    check_inputs,
    class_members,
    images_per_pass,
    rotated_images,
)
from poolbench.measures.rotation.layers import recorded_layers, recorded_outputs
from poolbench.measures.rotation.recorder import Recorder


@dataclass(frozen=True)
class Sweep:
    """Result of one pass over all images at all angles.

    ``units``: the table of :func:`activation_variance`. ``logits``: the network's outputs (angles, n,
    outputs), with images in their original order.
    """

    units: pd.DataFrame
    logits: Tensor

    @property
    def decisions(self) -> Tensor:
        """Predicted classes (angles, n); for a single logit, 1 if it is positive."""
        return predictions(self.logits.flatten(0, 1)).view(self.logits.shape[:2])


@dataclass(frozen=True)
class _Options:
    """The options of :func:`activation_variance` by the same names."""

    aggregation: Sequence[str]
    mask: Mask
    fill: Fill
    same_equivariant: bool
    chunk: int | None
    per_class: bool


def activation_variance(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor | None = None,
    aggregation: Sequence[str] = AGGREGATIONS,
    mask: Mask = "disc",
    fill: Fill = "zeros",
    same_equivariant: bool = False,
    chunk: int | None = None,
    per_class: bool = False,
) -> pd.DataFrame:
    """Return the rotation variance V = TV / SV of every unit of a network, from images (n, c, h, w) at all angles.

    One row per unit and aggregation, with columns depth, layer, kind, unit, aggregation, TV, SV, V, TV_se,
    V_se, V_layer_se, V_stratified, dead. For the activation a(t, x) at angle t (degrees) of image x, TV is the
    mean over x of the standard deviation over t, and SV the mean over t of the standard deviation over x, both with
    ddof 1 (Quiroga et al. 2019). V = 0 is invariant; near 1, rotating an image changes the unit as much as
    replacing it. A unit that never changes is ``dead`` and has V = NaN; one that changes only with the angle
    has V = inf. ``TV_se`` is the standard error over the images. So is ``V_se`` and, for the mean V of the unit's
    layer, ``V_layer_se``, by influence functions; both are NaN for positions, whose activations are not kept.
    ``V_stratified`` is the mean of V within each class of labels (n,), over classes with at least two images
    and a finite V; ``per_class`` adds a column "V of LABEL" for each class.

    ``images`` are pixels. They are masked by the inscribed disc at every angle, 0 included, unless ``mask``
    is None. ``aggregation`` reduces maps over space to their mean or maximum; with "none" every position is
    a unit, in the order (channel, row, column). Vectors stay as they are. ``same_equivariant`` rotates maps
    back by the angle of their image first, filled by reflection and masked like the images, so that a map
    that rotates with its image counts as constant.

    Memory: the activations of angles x ``chunk`` images (default: at most 2 million elements in the largest
    layer, 268 million on a GPU), 44 bytes per unit and angle, and for the standard errors the reduced maps of
    all images, or of every second, fourth, ... where they take more than 512 MB.

    Raises UsageError for fewer than two images or angles, and for unknown options.
    """
    options = _Options(aggregation, mask, fill, same_equivariant, chunk, per_class)
    return _measured(model, images, angles, labels, options, lambda indices, outputs: None)


def sweep(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor | None = None,
    aggregation: Sequence[str] = AGGREGATIONS,
    mask: Mask = "disc",
    fill: Fill = "zeros",
    same_equivariant: bool = False,
    chunk: int | None = None,
    per_class: bool = False,
) -> Sweep:
    """Return the table of :func:`activation_variance` together with the logits of the same forward passes."""
    passes: list[tuple[Tensor, Tensor]] = []

    def keep(indices: Tensor, outputs: Tensor) -> None:
        passes.append((indices, outputs.unflatten(0, (len(angles), -1))))

    options = _Options(aggregation, mask, fill, same_equivariant, chunk, per_class)
    units = _measured(model, images, angles, labels, options, keep)
    order = torch.cat([indices for indices, _ in passes]).argsort()
    return Sweep(units, torch.cat([logits for _, logits in passes], dim=1)[:, order])


def _measured(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor | None,
    options: _Options,
    on_pass: Callable[[Tensor, Tensor], None],
) -> pd.DataFrame:
    """Return the table of units; after each pass call ``on_pass(image indices (b,), outputs (angles * b, ...))``."""
    check_inputs(images, angles, labels, options.aggregation, options.mask, options.fill)
    inverse_angles = angles if options.same_equivariant else None
    recorder = Recorder(len(angles), options.aggregation, inverse_angles, options.mask, errors=True)
    classes, members = class_members(labels, len(images))
    model.eval()
    chunk = options.chunk or images_per_pass(model, images, angles)
    with torch.no_grad(), recorded_outputs(model, recorder.record):
        for indices in members:
            for part in indices.to(images.device).split(chunk):
                outputs = model(rotated_images(images[part], angles, options.mask, options.fill))
                recorder.end_pass()
                on_pass(part, outputs)
            recorder.end_class()
    return recorder.table(recorded_layers(model), classes if options.per_class else [])


def layer_means(units: pd.DataFrame) -> pd.DataFrame:
    """Average the table of :func:`activation_variance` over each layer's units, for each aggregation.

    Means are over finite values; ``V_se`` becomes the standard error of the mean V over the images; ``dead`` the
    share of dead units.
    """
    keys = ["depth", "layer", "kind", "aggregation"]
    averaged = ("TV", "SV", "V", "V_stratified")
    measured: list[Any] = [name for name in map(str, units) if name in averaged or name.startswith("V of ")]
    means = units[keys + measured].replace([np.inf, -np.inf], np.nan).groupby(keys)[measured].mean()
    if "V_layer_se" in units:
        means["V_se"] = units.groupby(keys)["V_layer_se"].first()
    means["dead"] = units.groupby(keys)["dead"].mean()
    return means.reset_index()


def rise_with_depth(layers: pd.DataFrame, aggregation: str = "mean") -> float:
    """Return the mean V of the upper half of the layers minus that of the lower half, from :func:`layer_means`.

    Halves are by depth; the middle one of an odd number of layers is in neither. NaN for fewer than two layers.
    """
    v = layers[layers["aggregation"] == aggregation].sort_values("depth")["V"].to_numpy(dtype=float)
    half = len(v) // 2
    return float(np.nanmean(v[-half:]) - np.nanmean(v[:half])) if half else math.nan
