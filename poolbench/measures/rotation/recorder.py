"""Reduces the outputs of forward passes to moments, layer by layer, as they are recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from poolbench.core import UsageError
from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation.inputs import AGGREGATIONS, Mask
from poolbench.measures.rotation.layers import kind_of
from poolbench.measures.rotation.moments import Moments, Workspace

STATISTICS = ("TV", "SV", "V", "TV_se", "V_se", "V_layer_se", "V_stratified", "dead")
Key = tuple[str, str]  # layer, aggregation


class Recorder:
    """Accumulates the moments of all units over images and angles; activations are dropped after each pass.

    ``aggregation``: see :func:`~poolbench.measures.rotation.variance.activation_variance`. With
    ``inverse_angles``, maps are first rotated by minus the angle of their image, and masked by the disc
    unless ``mask`` is None. ``errors``: standard errors of V of reduced maps.
    """

    def __init__(
        self,
        angles: int,
        aggregation: Sequence[str],
        inverse_angles: Sequence[float] | None,
        mask: Mask,
        errors: bool = False,
    ) -> None:
        self.angles, self.aggregation = angles, [name for name in AGGREGATIONS if name in aggregation]
        self.inverse_angles, self.mask = inverse_angles, mask
        self.workspace = Workspace()
        # The reduced maps of all layers are concatenated: one update of the moments per pass, not one per layer.
        self.reduced = Moments(angles, self.workspace, errors)
        self.pieces: dict[Key, Tensor] = {}
        self.columns: dict[Key, int] = {}
        self.positions: dict[str, Moments] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def record(self, layer: str, output: Tensor) -> None:
        """Reduce an output (angles * b, units, *space) of the current pass, before it can be overwritten."""
        if self.inverse_angles is not None and output.dim() == 4:
            output = self._inversely_rotated(output, self.inverse_angles)
        for name in self.aggregation:
            if name == "none":
                moments = self.positions.setdefault(layer, Moments(self.angles, self.workspace))
                moments.update(self._flat(layer, output))
            else:
                self.pieces[layer, name] = _reduced(output, name)

    def _flat(self, layer: str, output: Tensor) -> Tensor:
        """View an output as (angles, b, units * positions), in memory order."""
        self.shapes[layer] = tuple(output.shape[1:])
        if output.dim() > 2:
            output = output.movedim(1, -1)
        units: Tensor = output.reshape(len(output), -1).unflatten(0, (self.angles, -1))
        return units

    def _inversely_rotated(self, output: Tensor, angles: Sequence[float]) -> Tensor:
        # In float64, so that interpolation weights add up to 1 and a constant map stays constant when rounded.
        maps = output.double().unflatten(0, (self.angles, -1))
        rotated = [turns(part, [-angle], "reflect")[0] for angle, part in zip(angles, maps, strict=True)]
        result = torch.cat(rotated).to(output.dtype)
        return result * disc_mask((output.shape[-2], output.shape[-1]), output.device) if self.mask else result

    def reductions(self) -> Tensor:
        """Return the reduced maps of the pass that has just ended, (angles, b, units of all layers)."""
        self.columns = {key: piece.shape[1] for key, piece in self.pieces.items()}
        values: Tensor = torch.cat(list(self.pieces.values()), dim=1).unflatten(0, (self.angles, -1))
        self.pieces.clear()
        return values

    def end_pass(self) -> None:
        """Add the reduced maps of the pass that has just ended to the moments."""
        if self.pieces:
            self.reduced.update(self.reductions())

    def end_class(self) -> None:
        """Close the class whose images the last passes had."""
        for moments in (*self.positions.values(), *([self.reduced] if self.columns else [])):
            moments.close_class()

    def table(self, kinds: dict[str, str], classes: Sequence[int]) -> pd.DataFrame:
        """Return one row per unit and aggregation, with a column "V of LABEL" for each of the classes.

        Raises UsageError if no layer was recorded.
        """
        layers = self.shapes or dict.fromkeys(layer for layer, _ in self.columns)
        depths = {layer: depth for depth, layer in enumerate(layers)}
        if not depths:
            raise UsageError("no layer of the network gives one output per image: there is nothing to measure")
        keys, results = zip(*self._results(), strict=True)
        sizes = [len(result["V"]) for result in results]
        columns: dict[str, Any] = {
            "depth": np.repeat([depths[layer] for layer, _ in keys], sizes),
            "layer": np.repeat(np.array([layer for layer, _ in keys], dtype=object), sizes),
            "kind": np.repeat(np.array([kind_of(kinds, layer) for layer, _ in keys], dtype=object), sizes),
            "unit": np.concatenate([np.arange(size) for size in sizes]),
            "aggregation": np.repeat(np.array([name for _, name in keys], dtype=object), sizes),
        }
        for name in STATISTICS:
            columns[name] = torch.cat([result[name] for result in results]).cpu().numpy()
        if classes:
            each = torch.cat([result["classes"] for result in results], dim=1).cpu().numpy()
            columns |= {f"V of {label}": values for label, values in zip(classes, each, strict=True)}
        return pd.DataFrame(columns)

    def _results(self) -> Iterator[tuple[Key, dict[str, Tensor]]]:
        """Yield the statistics of each layer's units: all layers for one aggregation, then for the next."""
        if self.columns:
            sizes = list(self.columns.values())
            parts = {name: values.split(sizes, dim=-1) for name, values in self.reduced.result(sizes).items()}
            for aggregation in self.aggregation:
                for index, key in enumerate(self.columns):
                    if key[1] == aggregation:
                        yield key, {name: split[index] for name, split in parts.items()}
        for layer, moments in self.positions.items():
            units, *space = self.shapes[layer]
            # From memory order back to (unit, row, column).
            ordered = {
                name: values.unflatten(-1, (*space, units)).movedim(-1, -1 - len(space)).flatten(-1 - len(space))
                for name, values in moments.result().items()
            }
            yield (layer, "none"), ordered


def _reduced(output: Tensor, aggregation: str) -> Tensor:
    """Return the mean or maximum over space of an output (b, units, *space): a copy (b, units)."""
    if output.dim() == 2:
        return output.clone()
    if aggregation == "mean":
        return output.mean(dim=tuple(range(2, output.dim())))
    # One axis at a time, channels last as in memory: up to twenty times as fast for few channels.
    output = output.movedim(1, -1)
    while output.dim() > 2:
        output = output.amax(dim=1)
    return output
