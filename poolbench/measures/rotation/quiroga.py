"""The variance as it was first measured, faults included, so that old and corrected numbers stand side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.measures.rotation.layers import listening, recorded_layers
from poolbench.measures.rotation.variance import Listener, check, chunk_of, classes_of, turned

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
WINDOW = 64  # its batches: the number of images at which each of the overlapping windows looks
JITTER = 1.0  # degrees


def quiroga2019_variance(
    model: nn.Module,
    images: Tensor,
    angles: Sequence[float],
    labels: Tensor,
    mean: Tensor,
    std: Tensor,
    generator: torch.Generator,
    aggregation: Sequence[str] = ("mean", "max"),
    chunk: int | None = None,
) -> pd.DataFrame:
    """Return the table of ``activation_variance`` with the faults of Quiroga et al. 2019.

    TV comes from the windows x[i : i + 64] with i = 0 .. n // 64 - 1 in place of batches (219 of 10000
    images, those in the middle counted most), SV from all images. TV and SV each draw their own jitter
    of +-1 degree per angle. Nothing is masked. All images, and for the stratified measure those of each
    class, are normalised by their own mean and deviation: ``mean`` and ``std`` (c,) are what the model
    itself subtracts and divides by. A unit that never moves has V = 1 and counts, one that moves only
    with the angle has V = inf, for the stratified measure too if it does so in one class. The log-softmax
    counts as a layer. Batch statistics frozen after the first epoch belong to training, not here.

    Costs two passes over the images (all, then class by class); memory as ``activation_variance``.
    """
    check(images, angles, labels, aggregation, None, "zeros")

    def group(members: Tensor) -> pd.DataFrame:
        own = images[members.to(images.device)]
        own_std, own_mean = torch.std_mean(own.double(), dim=(0, 2, 3), correction=0)
        scale = std.double().flatten() / own_std.clamp(min=1e-12)
        offset = mean.double().flatten() - own_mean * scale
        batches = _Batches(model, scale.view(-1, 1, 1).to(own), offset.view(-1, 1, 1).to(own), aggregation, chunk)
        jitters = ((torch.rand(2, len(angles), generator=generator) * 2 - 1) * JITTER).tolist()
        first, second = ([angle + step for angle, step in zip(angles, jitter, strict=True)] for jitter in jitters)
        found = batches.variance_over_images(own, second)
        found["TV"] = batches.variance_over_angles(own, first)
        with np.errstate(divide="ignore", invalid="ignore"):
            found["V"] = (found["TV"] / found["SV"]).where((found["TV"] > 0) | (found["SV"] > 0), 1.0)
        return found

    whole = group(torch.arange(len(images)))
    classes = [group(members)["V"] for members in classes_of(labels, len(images))[1] if len(members) > 1]
    whole["V_stratified"] = np.mean(classes, axis=0) if classes else np.nan
    whole["dead"] = (whole["TV"] == 0) & (whole["SV"] == 0)
    return whole


@dataclass
class _Batches:
    """A network on images (n, c, h, w) that are turned, then shown as ``images * scale + offset``."""

    model: nn.Module
    scale: Tensor
    offset: Tensor
    aggregation: Sequence[str]
    chunk: int | None

    def variance_over_images(self, images: Tensor, angles: Sequence[float]) -> pd.DataFrame:
        """Return the rows of all units with the SV of all images."""
        listener = Listener(len(angles), self.aggregation, None, None)
        for _ in self._passes(images, angles, listener):
            listener.end_pass()
        listener.end_class()
        kinds = {**recorded_layers(self.model), "log_softmax": "logits"}
        columns = ["depth", "layer", "kind", "unit", "aggregation", "TV", "SV", "V"]
        return listener.table(kinds, [])[columns]

    def variance_over_angles(self, images: Tensor, angles: Sequence[float]) -> Array:
        """Return the TV (units,) of the overlapping windows, in the order of those rows."""
        starts = torch.arange(max(1, len(images) // WINDOW))[:, None] + torch.arange(min(WINDOW, len(images)))
        weights = starts.flatten().bincount().to(images.device)
        listener = Listener(len(angles), self.aggregation, None, None)
        passes = self._passes(images[: len(weights)], angles, listener)
        deviations = torch.cat([listener.reductions().double().std(dim=0) for _ in passes])
        tv = (weights[:, None] * deviations).sum(dim=0) / weights.sum()
        parts = dict(zip(listener.columns, tv.split(list(listener.columns.values())), strict=True))
        ordered = [parts[key] for name in listener.aggregation for key in parts if key[1] == name]
        return torch.cat(ordered).cpu().numpy()

    def _passes(self, images: Tensor, angles: Sequence[float], listener: Listener) -> Iterator[None]:
        self.model.eval()
        with torch.no_grad(), listening(self.model, listener.hear):
            for part in images.split(self.chunk or chunk_of(self.model, images, angles)):
                pixels = turned(part, angles, None, "zeros")
                logits = self.model(pixels * self.scale + self.offset)
                listener.hear("log_softmax", F.log_softmax(logits, dim=1))
                yield
