"""Rotation variance by the original protocol of Quiroga et al. 2019, faults included, for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.measures.rotation.inputs import check_inputs, class_members, images_per_pass, rotated_images
from poolbench.measures.rotation.layers import recorded_layers, recorded_outputs
from poolbench.measures.rotation.recorder import Recorder

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
WINDOW = 64  # images per overlapping window: the batch size of the original code
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
    """Return the rotation variance of every unit with the faults of Quiroga et al. 2019, from images (n, c, h, w).

    Columns as in ``activation_variance``, without the standard errors. Differences from that measure:

    - TV is taken over the windows x[i : i + 64], i = 0 .. n // 64 - 1, in place of batches (219 of 10,000
      images, those in the middle counted most often); SV over all images.
    - TV and SV have separate jitters of +-1 degree for each angle, drawn from ``generator``.
    - Images are not masked.
    - All images, and for the stratified measure those of each class, are normalised by their own mean and
      standard deviation. ``mean`` and ``std`` (c,) are what the model subtracts and divides by.
    - A unit that never changes has V = 1 and counts. One that changes only with the angle has V = inf; if it
      does so within one class, its stratified V is inf, too.
    - The log-softmax counts as a layer.

    Batch statistics frozen after the first epoch, the remaining fault, are a matter of training. Costs two
    passes over the images (all of them, then class by class); memory as ``activation_variance``. Raises
    UsageError as ``activation_variance`` does.
    """
    check_inputs(images, angles, labels, aggregation, None, "zeros")

    def group_table(members: Tensor) -> pd.DataFrame:
        group = images[members.to(images.device)]
        passes = _Passes(model, *_normalisation(group, mean, std), aggregation, chunk)
        jitters = ((torch.rand(2, len(angles), generator=generator) * 2 - 1) * JITTER).tolist()
        first, second = ([angle + step for angle, step in zip(angles, jitter, strict=True)] for jitter in jitters)
        table = passes.variance_over_images(group, second)
        table["TV"] = passes.variance_over_angles(group, first)
        with np.errstate(divide="ignore", invalid="ignore"):
            table["V"] = (table["TV"] / table["SV"]).where((table["TV"] > 0) | (table["SV"] > 0), 1.0)
        return table

    whole = group_table(torch.arange(len(images)))
    members = class_members(labels, len(images))[1]
    classes = [group_table(indices)["V"] for indices in members if len(indices) > 1]
    whole["V_stratified"] = np.mean(classes, axis=0) if classes else np.nan
    whole["dead"] = (whole["TV"] == 0) & (whole["SV"] == 0)
    return whole


def _normalisation(images: Tensor, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and offset (c, 1, 1) that give images (n, c, h, w) the mean and std (c,) of the model's training."""
    own_std, own_mean = torch.std_mean(images.double(), dim=(0, 2, 3), correction=0)
    scale = std.double().flatten() / own_std.clamp(min=1e-12)
    offset = mean.double().flatten() - own_mean * scale
    return scale.view(-1, 1, 1).to(images), offset.view(-1, 1, 1).to(images)


@dataclass
class _Passes:
    """Forward passes of rotated images (n, c, h, w), given to the network as ``images * scale + offset``."""

    model: nn.Module
    scale: Tensor
    offset: Tensor
    aggregation: Sequence[str]
    chunk: int | None

    def variance_over_images(self, images: Tensor, angles: Sequence[float]) -> pd.DataFrame:
        """Return one row per unit with the SV over all images."""
        recorder = Recorder(len(angles), self.aggregation, None, None)
        for _ in self._run(images, angles, recorder):
            recorder.end_pass()
        recorder.end_class()
        kinds = {**recorded_layers(self.model), "log_softmax": "logits"}
        columns = ["depth", "layer", "kind", "unit", "aggregation", "TV", "SV", "V"]
        return recorder.table(kinds, [])[columns]

    def variance_over_angles(self, images: Tensor, angles: Sequence[float]) -> Array:
        """Return the TV (units,) over the overlapping windows, in the row order of :meth:`variance_over_images`."""
        windows = torch.arange(max(1, len(images) // WINDOW))[:, None] + torch.arange(min(WINDOW, len(images)))
        weights = windows.flatten().bincount().to(images.device)
        recorder = Recorder(len(angles), self.aggregation, None, None)
        passes = self._run(images[: len(weights)], angles, recorder)
        deviations = torch.cat([recorder.reductions().double().std(dim=0) for _ in passes])
        tv = (weights[:, None] * deviations).sum(dim=0) / weights.sum()
        parts = dict(zip(recorder.columns, tv.split(list(recorder.columns.values())), strict=True))
        ordered = [parts[key] for name in recorder.aggregation for key in parts if key[1] == name]
        return torch.cat(ordered).cpu().numpy()

    def _run(self, images: Tensor, angles: Sequence[float], recorder: Recorder) -> Iterator[None]:
        """Forward the images chunk by chunk at all angles; yield after each pass."""
        self.model.eval()
        with torch.no_grad(), recorded_outputs(self.model, recorder.record):
            for part in images.split(self.chunk or images_per_pass(self.model, images, angles)):
                pixels = rotated_images(part, angles, None, "zeros")
                logits = self.model(pixels * self.scale + self.offset)
                recorder.record("log_softmax", F.log_softmax(logits, dim=1))
                yield
