"""Decisions on the user's images when they are rotated, and the rotation variance of the network's layers."""

from __future__ import annotations

import pandas as pd
import torch

from poolbench.analysis.bootstrap import bootstrap_intervals
from poolbench.core import UsageError
from poolbench.measures.rotation import activation_variance, layer_means
from poolbench.measures.rotation.inputs import rotated_images
from poolbench.own_model.model import own_path
from poolbench.own_model.passes import Answers, Change, Passes
from poolbench.own_model.results import Rotation
from poolbench.own_model.shifts import Labels, window

ANGLES = (0, -5, 5, -10, 10, -15, 15, -30, 30, -45, 45, -90, 90, -135, 135, 180)
"""Degrees, counter-clockwise; the first is the reference."""
LAYER_ANGLES = tuple(range(0, 360, 30))
LAYER_IMAGES = 48


def rotated(passes: Passes) -> Answers:
    """Return the answers on the centre crops, black outside the inscribed disc, at each of ``ANGLES``."""

    def by(angle: float) -> Change:
        return lambda larger, first: rotated_images(window(passes.size)(larger, first), [angle], "disc", "zeros")

    return passes.answers([by(angle) for angle in ANGLES])


def rotation_passes(images: int) -> int:
    """Return the forward passes of :func:`rotated` and :func:`rotation`, in images."""
    return images * len(ANGLES) + min(images, LAYER_IMAGES) * len(LAYER_ANGLES)


def rotation(passes: Passes, answers: Answers, labels: Labels) -> Rotation:
    """Return the curve over angles from :func:`rotated`, and V by layer from forward passes over a few images."""
    strata = None if labels is None else labels.numpy()
    columns = [(answers.decisions == answers.decisions[:1]).double().T]
    if labels is not None:
        columns.append((answers.decisions == labels).double().T)
    found = bootstrap_intervals(torch.cat(columns, dim=1).numpy(), strata)
    table = pd.DataFrame({"angle": [float(angle) for angle in ANGLES]})
    for index, name in enumerate(("agreement", "accuracy")):
        part = found[index * len(ANGLES) : (index + 1) * len(ANGLES)]
        for suffix, field in (("", "mean"), ("_low", "low"), ("_high", "high")):
            table[name + suffix] = [getattr(interval, field) for interval in part] or float("nan")
    few = min(len(passes), LAYER_IMAGES)
    return Rotation(table.sort_values("angle", ignore_index=True), _layers(passes, few), few)


def _layers(passes: Passes, few: int) -> pd.DataFrame | None:
    """Return V by layer (depth, layer, kind, V, V_se) of channel means; None if it cannot be measured."""
    if few < 2:
        return None
    # Images are in order of their classes.
    spread = passes.on(passes.larger[:: len(passes) // few][:few])
    parts = [window(passes.size)(larger, first) for first, larger in spread.batches()]
    try:
        units = activation_variance(passes.network, torch.cat(parts), LAYER_ANGLES, aggregation=("mean",))
    except UsageError:
        return None  # no layer gives one output per image
    passes.counter.add(few * len(LAYER_ANGLES))
    layers = layer_means(units).dropna(subset=["V"])
    layers["layer"] = [own_path(path) for path in layers["layer"]]
    return layers.sort_values("depth", ignore_index=True)[["depth", "layer", "kind", "V", "V_se"]]
