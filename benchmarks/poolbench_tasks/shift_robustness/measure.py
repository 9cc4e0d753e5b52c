"""Decisions under shifts, beside accuracy; for drawn shapes the map of the article's test object as well."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from math import isnan
from typing import Literal

import pandas as pd
import torch
from torch import Generator, Tensor, nn

from poolbench.core import Cell, Measurement, derive_seed
from poolbench.data import Dataset, to_pixels
from poolbench.data.shapes import draw_rectangles, sample_shapes
from poolbench.engine import evaluate
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench_tasks.shift_robustness import ShiftOptions

LARGEST_HALF_SIZE = 14
# Reach of shape_net with two pooling layers of the widest window (blur7, 3 px): 1 + 3, twice 1 + 3, four times 1.
NETWORK_REACH = 16
TEST_OBJECT_HALF_SIZE = 6
BOUNDARIES: tuple[Literal["circular", "crop"], ...] = ("circular", "crop")
REACH = 3  # pixels, of the shifts of whole images: the published {-3..2} and its mirror image
HALF_PIXELS = [(dy / 2, dx / 2) for dy in range(-2, 3) for dx in range(-2, 3)]
SENSITIVITY_IMAGES = 16
SENSITIVITY_SHIFTS = [(0, 1), (1, 0), (1, 1), (2, 2), (3, 3), (4, 4)]


def measure(cell: Cell, options: ShiftOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracy and consistency under shifts; for drawn shapes also the map of the article's test object."""
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "shifts"))
    loss, accuracy = evaluate(model, data.test)
    metrics = {"accuracy": accuracy, "loss": loss}
    test = to_pixels(data.test.images[: options.samples])
    for boundary in BOUNDARIES:
        agreement, error = shift.sampled_consistency(model, test, REACH, generator, boundary)
        metrics |= {f"{boundary}_sampled": agreement, f"{boundary}_sampled_se": error}
    metrics["circular_legacy"] = shift.legacy_consistency(model, test, generator)
    if cell.dataset.name == "shapes":
        stride = 2 ** int(cell.architecture.options.get("num_pooling") or 0)
        mapped = _test_object(model, data, stride)
        shifted = _whole_objects(options, model, data, generator, stride)
        metrics |= mapped.metrics
        arrays = mapped.arrays
    else:
        shifted = _images_under_shifts(options, model, data)
        arrays = {}
    return Measurement({**metrics, **shifted.metrics}, shifted.tables, arrays)


def _test_object(model: nn.Module, data: Dataset, stride: int) -> Measurement:
    """Return the canvas map of a 13x13 square, its parts, and their numbers in standard deviations of the logit."""
    device, half = data.test.images.device, TEST_OBJECT_HALF_SIZE
    stamp = draw_rectangles(torch.tensor([[half, half]]), torch.tensor([[half, half]]), 2 * half + 1)[0]
    canvas = torch.zeros(data.in_shape, device=device)
    logits = shift.canvas_map(model, to_pixels(stamp[None].to(device))[0], canvas, stride).cpu()
    statistics = shift.map_statistics(logits)
    logits = logits[..., 0]
    metrics = {"map_range": statistics.range, "map_std": statistics.deviation, "flips": statistics.flips}
    arrays = {"map": torch.sigmoid(logits).numpy()}
    parts = shift.decompose(logits, stride)
    # Networks differ in the scale of their logit, so deviations are in units of its spread over the test objects.
    scale = float(shift.outputs(model, to_pixels(data.test.images)).std())
    if parts is not None and scale > 0:
        metrics |= {
            "interior_range": parts.phase_range,
            "aliasing": parts.phase_deviation / scale,
            "boundary": parts.boundary_deviation / scale,
            "noise": parts.noise_deviation / scale,
        }
        for name in ("phase", "boundary", "phases"):
            arrays[f"map_{name}"] = (getattr(parts, name) / scale).numpy()
    return Measurement(metrics, arrays=arrays)


def _whole_objects(
    options: ShiftOptions, model: nn.Module, data: Dataset, generator: Generator, stride: int
) -> Measurement:
    """Return the consistency over all shifts that keep an object inside the canvas."""
    device, size = data.test.images.device, data.in_shape[1]
    margin = min(LARGEST_HALF_SIZE + NETWORK_REACH + stride, size // 2 - 1)
    objects, labels = sample_shapes(options.objects, size, generator, str(device), margin=margin)
    pixels = to_pixels(objects)
    try:
        logits = {"float32": shift.period_of_logits(model, pixels, stride)}
        span, periodic = range(stride), True
    except shift.NotPeriodic:
        # A pool that sees the whole map (ideal_lowpass) depends on the zero padding at any distance.
        span, periodic = range(-REACH, REACH + stride), False
        logits = {"float32": shift.shifted_logits(model, pixels, span, span)}
    logits["bfloat16"] = shift.shifted_logits(shift.BFloat16(model), pixels, span, span)
    conditions = _conditions(logits, labels, stride, periodic)
    metrics = _headlines(conditions)
    if periodic:
        # The shifts of one period are all that occur.
        metrics["exact_consistency"] = conditions["float32", "none"]["consistency"]
    return Measurement(metrics, _tables(conditions, model, pixels))


def _images_under_shifts(options: ShiftOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return the consistency over a grid of circular shifts, and over all of them where the network is periodic."""
    chosen = data.test.take(_subset(len(data.test), options.images).to(data.test.labels.device))
    pixels, labels = to_pixels(chosen.images), chosen.labels
    span = range(-options.reach, options.reach + options.average)
    networks = {"float32": model, "bfloat16": shift.BFloat16(model)}
    logits = {name: shift.shifted_logits(network, pixels, span, span) for name, network in networks.items()}
    conditions = _conditions(logits, labels, options.average, periodic=False)
    metrics = _headlines(conditions)
    metrics["subpixel_consistency"] = shift.subpixel_consistency(model, pixels, labels, HALF_PIXELS).consistency
    # With zero padding or maps of odd size the grid is the only measure.
    with suppress(shift.NotPeriodic):
        metrics["exact_consistency"] = shift.exact_consistency(
            model,
            pixels[: options.exact_images],
            labels[: options.exact_images],
            shift.total_stride(model, pixels[0]),
        ).consistency
    return Measurement(metrics, _tables(conditions, model, pixels))


def _conditions(
    logits: Mapping[str, Tensor], labels: Tensor, average: int, periodic: bool
) -> dict[tuple[str, str], dict[str, float]]:
    """Return by (precision, averaging) what decisions do under the same set of circular shifts.

    ``logits`` (rows, columns, n, outputs) by precision, over one period where ``periodic``, else over the
    stated shifts and the ``average`` - 1 further ones that averaging the last of them takes.
    """

    found: dict[tuple[str, str], dict[str, float]] = {}
    for precision, answers in logits.items():
        if periodic:
            again = torch.arange(2 * average - 1) % average
            answers = answers[again][:, again]
        averaged = shift.average_phases(answers, average)
        single = answers[: len(averaged), : len(averaged)]
        for averaging, own in (("none", single), ("phases", averaged)):
            decided = shift.consistency_of(predictions(own).flatten(0, 1), labels)
            found[precision, averaging] = asdict(decided) | asdict(shift.step_changes(own, wrap=periodic))
    return found


def _tables(
    conditions: dict[tuple[str, str], dict[str, float]], model: nn.Module, pixels: Tensor
) -> dict[str, pd.DataFrame]:
    """Return the conditions and the layer sensitivity of a few images as tables."""
    rows = [{"precision": key[0], "averaging": key[1], **values} for key, values in conditions.items()]
    sensitivity = shift.layer_sensitivity(model, pixels[:SENSITIVITY_IMAGES], SENSITIVITY_SHIFTS)
    return {"conditions": pd.DataFrame(rows), "sensitivity": sensitivity}


def _headlines(conditions: dict[tuple[str, str], dict[str, float]]) -> dict[str, float]:
    """Return the metrics that stand for the conditions."""
    plain, averaged = conditions["float32", "none"], conditions["float32", "phases"]
    metrics = {
        "consistency": plain["consistency"],
        "consistency_corrected": plain["corrected"],
        "mean_shifted_accuracy": plain["mean_accuracy"],
        "worst_accuracy": plain["worst_accuracy"],
        "flip_rate": plain["flip_rate"],
        "mean_absolute_change": plain["mean_absolute_change"],
        "averaged_accuracy": averaged["mean_accuracy"],
        "averaged_consistency": averaged["consistency"],
        "bfloat16_consistency": conditions["bfloat16", "none"]["consistency"],
        "kappa": plain["kappa"],
    }
    # A constant predictor has no kappa.
    return {name: value for name, value in metrics.items() if not isnan(value)}


def _subset(total: int, wanted: int) -> Tensor:
    """Return the indices of the test images that are shifted: the same ones in every cell."""
    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:wanted]
