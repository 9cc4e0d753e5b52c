"""Variance of activations over angles against their variance over images, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.geometry import PADDING, Fill, disc_mask, turns
from poolbench.measures.classification import predictions
from poolbench.measures.rotation.layers import kind_of, listening, recorded_layers
from poolbench.measures.rotation.moments import Moments, Workspace

Mask = Literal["disc"] | None
AGGREGATIONS = ("mean", "max", "none")

# The largest layer's activations in one forward pass: small passes beat large ones on a CPU.
LARGEST_LAYER = {"cpu": 2**21, "cuda": 2**28}
MOST_AT_ONCE = 4096  # turned images


@dataclass(frozen=True)
class Sweep:
    """What one pass over all images at all angles finds.

    ``units`` is the table of :func:`activation_variance`; ``logits`` (angles, n, outputs) are the
    network's own outputs, images in the order in which they were given.
    """

    units: pd.DataFrame
    logits: Tensor

    @property
    def decisions(self) -> Tensor:
        """Classes (angles, n); of a single logit, 1 where it is positive."""
        return predictions(self.logits.flatten(0, 1)).view(self.logits.shape[:2])


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
    """Return one row per unit and aggregation, from one pass over images (n, c, h, w) at all angles.

    Columns: depth, layer, kind, unit, aggregation, TV, SV, V, TV_se, V_se, V_stratified, dead. With
    a(t, x) the activation at angle t (degrees) of image x: TV = mean over x of the standard deviation
    over t, SV = mean over t of the standard deviation over x, V = TV / SV (Quiroga et al. 2019; both
    with n - 1). 0 is invariant; near 1, turning an image moves the unit as much as changing it. A unit
    that never moves is ``dead`` and has V = NaN; one that moves only with the angle has V = inf. The
    same images and angles serve both TV and SV. ``TV_se`` is the standard error over the images;
    ``V_se`` follows from it as if SV were that of normal values and independent of TV. Images that move
    a unit much raise both, so the true error is smaller, by half in the cases that were tried.
    ``V_stratified`` is the mean over the classes of V within the class (finite ones; classes of two
    images or more), given labels (n,); ``per_class`` adds a column "V of LABEL" for each.

    ``images`` (n, c, h, w) are pixels; every turned one, that of 0 degrees too, is masked by the
    inscribed disc unless ``mask`` is None. ``aggregation`` reduces maps over space to their mean or
    maximum; with "none" every position is a unit, in the order (channel, row, column). Vectors have no
    space and pass as they are. ``same_equivariant`` turns maps back first (their border goes on as it is,
    and the mask lies on them too), so that a map that turns with the image counts as constant.

    Memory: activations of angles x ``chunk`` images (by default so few that the largest layer has two
    million, 268 million on a GPU), and 44 bytes per unit and angle; the number of images does not
    count. Raises UsageError for fewer than two images or angles and for unknown options.
    """
    return _run(model, images, angles, labels, aggregation, mask, fill, same_equivariant, chunk, per_class, None)


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
    """Return what :func:`activation_variance` does, and the logits that the same forward passes end in."""
    parts: list[tuple[Tensor, Tensor]] = []
    units = _run(model, images, angles, labels, aggregation, mask, fill, same_equivariant, chunk, per_class, parts)
    order = torch.cat([part for part, _ in parts]).argsort()
    return Sweep(units, torch.cat([logits for _, logits in parts], dim=1)[:, order])


def _run(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor | None,
    aggregation: Sequence[str],
    mask: Mask,
    fill: Fill,
    same_equivariant: bool,
    chunk: int | None,
    per_class: bool,
    parts: list[tuple[Tensor, Tensor]] | None,
) -> pd.DataFrame:
    """Return the table of units; add (places of images, logits at all angles) to ``parts``, where it is a list."""
    check(images, angles, labels, aggregation, mask, fill)
    listener = Listener(len(angles), aggregation, angles if same_equivariant else None, mask)
    kinds = recorded_layers(model)
    names, members = classes_of(labels, len(images))
    model.eval()
    chunk = chunk or chunk_of(model, images, angles)
    with torch.no_grad(), listening(model, listener.hear):
        for chosen in members:
            for part in chosen.to(images.device).split(chunk):
                logits = model(turned(images[part], angles, mask, fill))
                listener.end_pass()
                if parts is not None:
                    parts.append((part, logits.unflatten(0, (len(angles), -1))))
            listener.end_class()
    return listener.table(kinds, names if per_class else [])


def check(
    images: Tensor, angles: Sequence[float], labels: Tensor | None, aggregation: Sequence[str], mask: Mask, fill: Fill
) -> None:
    """Raise UsageError for what no variance can be measured with."""
    if len(images) < 2 or len(angles) < 2:
        raise UsageError(f"a variance needs two images and two angles, got {len(images)} and {len(angles)}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise UsageError(f"labels are one per image ({len(images)},), got {tuple(labels.shape)}")
    if not aggregation or not set(aggregation) <= set(AGGREGATIONS):
        raise UsageError(f"aggregation is some of {', '.join(AGGREGATIONS)}, got {', '.join(aggregation) or 'nothing'}")
    if mask not in ("disc", None):
        raise UsageError(f"mask is 'disc' or None, got {mask!r}")
    if fill not in PADDING:
        raise UsageError(f"fill is one of {', '.join(PADDING)}, got {fill!r}")


def classes_of(labels: Tensor | None, count: int) -> tuple[list[int], list[Tensor]]:
    """Return the classes and the indices (on the CPU) of the images of each; all images are one without labels."""
    if labels is None:
        return [], [torch.arange(count)]
    labels = labels.cpu()
    names = [int(name) for name in labels.unique()]
    return names, [(labels == name).nonzero().flatten() for name in names]


def chunk_of(model: nn.Module, images: Tensor, angles: Sequence[float]) -> int:
    """Return how many images go through the network at once at all angles, from the size of its largest layer."""
    largest = 1

    def keep(layer: str, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, output[0].numel())

    with torch.no_grad(), listening(model, keep):
        model(images[:1])
    turned_at_once = min(MOST_AT_ONCE, LARGEST_LAYER.get(images.device.type, 2**21) // largest)
    return max(1, turned_at_once // len(angles))


def turned(images: Tensor, angles: Sequence[float], mask: Mask, fill: Fill) -> Tensor:
    """Turn images (b, c, h, w) by all angles and mask them: (angles * b, c, h, w), all of an angle together."""
    found = turns(images, angles, fill).flatten(0, 1)
    if mask == "disc":
        found = found * disc_mask((images.shape[-2], images.shape[-1]), images.device)
    return found.contiguous(memory_format=torch.channels_last)


class Listener:
    """Takes the outputs of forward passes in, layer by layer, and keeps their moments alone."""

    def __init__(self, angles: int, aggregation: Sequence[str], back: Sequence[float] | None, mask: Mask) -> None:
        self.angles, self.aggregation = angles, [name for name in AGGREGATIONS if name in aggregation]
        self.back, self.mask = back, mask
        self.workspace = Workspace()
        # All reduced maps of a pass side by side: one update for all layers costs less than one for each.
        self.reduced = Moments(angles, self.workspace)
        self.pieces: dict[tuple[str, str], Tensor] = {}
        self.columns: dict[tuple[str, str], int] = {}
        self.positions: dict[str, Moments] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def hear(self, layer: str, output: Tensor) -> None:
        """Reduce an output (angles * b, units, *space) while it lasts."""
        if self.back is not None and output.dim() == 4:
            output = self._turned_back(output)
        for name in self.aggregation:
            if name == "none":
                self.positions.setdefault(layer, Moments(self.angles, self.workspace)).update(self._flat(layer, output))
            else:
                self.pieces[layer, name] = _reduced(output, name)

    def _flat(self, layer: str, output: Tensor) -> Tensor:
        """View an output as (angles, b, units), units in the order in which they lie in memory."""
        self.shapes[layer] = tuple(output.shape[1:])
        if output.dim() > 2:
            output = output.movedim(1, -1)
        units: Tensor = output.reshape(len(output), -1).unflatten(0, (self.angles, -1))
        return units

    def _turned_back(self, output: Tensor) -> Tensor:
        assert self.back is not None
        # In double precision, so that weights add up to 1 and what is constant stays so when it is rounded again.
        maps = output.double().unflatten(0, (self.angles, -1))
        turned = [turns(own, [-angle], "reflect")[0] for angle, own in zip(self.back, maps, strict=True)]
        found = torch.cat(turned).to(output.dtype)
        return found * disc_mask((output.shape[-2], output.shape[-1]), output.device) if self.mask == "disc" else found

    def reductions(self) -> Tensor:
        """Return the reduced maps of the forward pass that has just ended, (angles, b, units of all layers)."""
        self.columns = {key: piece.shape[1] for key, piece in self.pieces.items()}
        values: Tensor = torch.cat(list(self.pieces.values()), dim=1).unflatten(0, (self.angles, -1))
        self.pieces.clear()
        return values

    def end_pass(self) -> None:
        """Take in the reduced maps of the forward pass that has just ended."""
        if self.pieces:
            self.reduced.update(self.reductions())

    def end_class(self) -> None:
        """End the class of the last passes."""
        for moments in (*self.positions.values(), *([self.reduced] if self.columns else [])):
            moments.close_class()

    def table(self, kinds: dict[str, str], classes: Sequence[int]) -> pd.DataFrame:
        """Return the rows of all units, the V of each named class beside them."""
        depths = {layer: depth for depth, layer in enumerate(self.shapes or dict.fromkeys(k for k, _ in self.columns))}
        if not depths:
            raise UsageError("no layer of the network gives one output per image: there is nothing to measure")
        keys, found = zip(*self._found(), strict=True)
        sizes = [len(own["V"]) for own in found]
        columns: dict[str, Any] = {
            "depth": np.repeat([depths[layer] for layer, _ in keys], sizes),
            "layer": np.repeat(np.array([layer for layer, _ in keys], dtype=object), sizes),
            "kind": np.repeat(np.array([kind_of(kinds, layer) for layer, _ in keys], dtype=object), sizes),
            "unit": np.concatenate([np.arange(size) for size in sizes]),
            "aggregation": np.repeat(np.array([name for _, name in keys], dtype=object), sizes),
        }
        for name in ("TV", "SV", "V", "TV_se", "V_se", "V_stratified", "dead"):
            columns[name] = torch.cat([own[name] for own in found]).cpu().numpy()
        if classes:
            each = torch.cat([own["classes"] for own in found], dim=1).cpu().numpy()
            columns |= {f"V of {name}": own for name, own in zip(classes, each, strict=True)}
        return pd.DataFrame(columns)

    def _found(self) -> Iterator[tuple[tuple[str, str], dict[str, Tensor]]]:
        """Yield the result of each layer and aggregation, aggregations outside."""
        if self.columns:
            whole = self.reduced.result()
            parts = {name: values.split(list(self.columns.values()), dim=-1) for name, values in whole.items()}
            for aggregation in self.aggregation:
                for place, key in enumerate(self.columns):
                    if key[1] == aggregation:
                        yield key, {name: found[place] for name, found in parts.items()}
        for layer, moments in self.positions.items():
            units, *space = self.shapes[layer]
            yield (
                (layer, "none"),
                {
                    name: values.unflatten(-1, (*space, units)).movedim(-1, -1 - len(space)).flatten(-1 - len(space))
                    for name, values in moments.result().items()
                },
            )


def _reduced(output: Tensor, aggregation: str) -> Tensor:
    """Return the mean or maximum over space of an output (b, units, *space), as a copy."""
    if output.dim() == 2:
        return output.clone()
    if aggregation == "mean":
        return output.mean(dim=tuple(range(2, output.dim())))
    # Axis by axis, channels behind as they lie in memory: up to twenty times as fast where there are few.
    output = output.movedim(1, -1)
    while output.dim() > 2:
        output = output.amax(dim=1)
    return output


def layer_means(units: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer and aggregation: means over the layer's finite units, and the share of dead ones."""
    keys = ["depth", "layer", "kind", "aggregation"]
    named = ("TV", "SV", "V", "V_stratified")
    measured: list[Any] = [name for name in map(str, units) if name in named or name.startswith("V of ")]
    means = units[keys + measured].replace([np.inf, -np.inf], np.nan).groupby(keys)[measured].mean()
    means["dead"] = units.groupby(keys)["dead"].mean()
    return means.reset_index()
