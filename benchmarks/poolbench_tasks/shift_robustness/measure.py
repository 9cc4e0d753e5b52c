"""Decisions under shifts, beside accuracy; for drawn shapes the map of the article's test object as well.

All columns of a table come from the same images (for drawn shapes: the same objects), which are the same in
every cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.core import Cell, Measurement, derive_seed
from poolbench.data import Dataset, to_pixels
from poolbench.data.shapes import draw_rectangles, sample_morphs, sample_shapes
from poolbench.engine import evaluate
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench_tasks.shift_robustness import ShiftOptions

LARGEST_HALF_SIZE = 14
LARGEST_STRIDE = 4  # of shape_net
# Reach of shape_net with two pooling layers of the widest window (blur7, 3 px): 1 + 3, twice 1 + 3, four times 1.
NETWORK_REACH = 16
TEST_OBJECT_HALF_SIZE = 6
DRAWS: Mapping[Literal["circular", "crop"], int] = {"circular": 2, "crop": 4}  # random shifts per image
REACH = 3  # pixels, of random shifts of whole images: the published {-3..2}
HALF_PIXELS = [(dy / 2, dx / 2) for dy in range(-2, 3) for dx in range(-2, 3)]
SENSITIVITY_IMAGES = 16
SENSITIVITY_SHIFTS = [(0, 1), (1, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
MEANS = {
    "subset_accuracy": "correct",
    "consistency": "consistency",
    "worst_accuracy": "worst",
    "mean_shifted_accuracy": "mean_correct",
    "grid_consistency": "grid_consistency",
    "grid_worst_accuracy": "grid_worst",
    "circular_sampled": "circular_sampled",
    "crop_sampled": "crop_sampled",
}
"""Metrics that are the mean of a column of table ``decisions``."""


@dataclass(frozen=True)
class Shifted:
    """Logits of the measured images under circular shifts.

    ``grid`` (shifts, shifts, n, outputs): at the shifts ``span`` by ``span``, the last ``average`` - 1 of which are
    there for averaging alone. ``all``: those of one ``period``, which are all that occur; where the network is not
    periodic (``period`` None) the grid's without the further ones.
    """

    grid: Tensor
    all: Tensor
    span: range
    average: int
    period: int | None

    @property
    def compared(self) -> Tensor:
        """The grid's logits at the shifts that are compared."""
        count = len(self.span) - self.average + 1
        return self.grid[:count, :count]

    @property
    def unshifted(self) -> Tensor:
        """The logits (n, outputs) of the images as they are."""
        return self.grid[self.span.index(0), self.span.index(0)]


def measure(cell: Cell, options: ShiftOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracy and consistency under shifts; for drawn shapes also the map of the article's test object."""
    loss, accuracy = evaluate(model, data.test, cell.train.mask)
    is_drawn = cell.dataset.name == "shapes"
    pixels, labels = _objects(options, data) if is_drawn else _images(options, data, cell.train.mask)
    stride = 2 ** int(cell.architecture.options.get("num_pooling") or 0) if is_drawn else None
    logits = _logits(model, pixels, options, stride)
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "shifts"))
    decisions = _decisions(model, pixels, labels, logits, generator)
    conditions = _conditions(model, pixels[: options.few], labels, logits)

    metrics = {"accuracy": accuracy, "loss": loss, **_means(decisions, logits.period is not None)}
    metrics |= _beyond_chance(logits, labels) | _headlines(conditions)
    metrics["circular_legacy"] = shift.legacy_consistency(model, pixels, generator)
    arrays = {}
    if stride is None:
        few = pixels[: options.few], labels[: options.few]
        metrics["subpixel_consistency"] = shift.subpixel_consistency(model, *few, HALF_PIXELS).consistency
    else:
        # Networks differ in the scale of their logit, so deviations are in units of its spread over the objects.
        scale = float(logits.all.double().std(correction=0))
        if logits.period and scale > 0:
            decisions["aliasing"] = (_phase_deviation(logits.all) / scale).cpu().numpy()
            metrics["aliasing"] = float((decisions["aliasing"] ** 2).mean() ** 0.5)
        if logits.period:
            metrics["morph_consistency"] = _morphs(decisions, model, options, data, stride)
        mapped = _square(model, data, stride, scale)
        metrics |= mapped.metrics
        arrays = dict(mapped.arrays)
    sensitivity = shift.layer_sensitivity(model, pixels[:SENSITIVITY_IMAGES], SENSITIVITY_SHIFTS)
    tables = {"decisions": decisions, "conditions": conditions, "sensitivity": sensitivity}
    return Measurement(metrics, tables, arrays)


def _images(options: ShiftOptions, data: Dataset, mask: str) -> tuple[Tensor, Tensor]:
    """Return pixels and labels of the measured test images: the same ones in every cell."""
    chosen = data.test.sample(options.images)
    return to_pixels(chosen.images, mask), chosen.labels


def _objects(options: ShiftOptions, data: Dataset) -> tuple[Tensor, Tensor]:
    """Return pixels and labels of the measured objects, whole and away from the border: the same in every cell."""
    generator = torch.Generator().manual_seed(derive_seed(0, "measured objects"))
    device, (_, size, _) = data.test.images.device, data.in_shape
    objects, labels = sample_shapes(options.objects, size, generator, device, _margin(size))
    return to_pixels(objects), labels


def _margin(size: int) -> int:
    """Return the distance at which the border does not reach the logit of any object, as far as there is room."""
    return min(LARGEST_HALF_SIZE + NETWORK_REACH + LARGEST_STRIDE, size // 2 - 1)


def _morphs(decisions: pd.DataFrame, model: nn.Module, options: ShiftOptions, data: Dataset, stride: int) -> float:
    """Return the exact consistency of objects between square and circle; add its values per object to decisions.

    Whole rectangles and circles are far from the network's boundary, so few shifts change the answer. Somewhere between
    them lies the boundary.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "measured morphs"))
    device, (_, size, _) = data.test.images.device, data.in_shape
    pixels = to_pixels(sample_morphs(options.objects, size, generator, device, _margin(size)))
    chosen = predictions(shift.period_of_logits(model, pixels, stride)).flatten(0, 1)
    decisions["morph_consistency"] = shift.per_image(chosen, chosen[0]).consistency.cpu().numpy()
    return float(decisions["morph_consistency"].mean())


def _logits(model: nn.Module, pixels: Tensor, options: ShiftOptions, stride: int | None) -> Shifted:
    """Return the logits under all circular shifts where the network is periodic, else under the stated grid.

    ``stride`` is that of a drawn object's network, whose grid is one period: shifts that keep the object inside.
    """
    average = options.average if stride is None else stride
    reach = options.reach if stride is None else REACH
    period = stride or shift.total_stride(model, pixels[0])
    try:
        logits = shift.period_of_logits(model, pixels, period)
    except shift.NotPeriodic:
        # Zero padding near an object, maps of odd size, a pool that sees the whole map (ideal_lowpass).
        span = range(-reach, reach + average)
        grid = shift.shifted_logits(model, pixels, span, span)
        found = Shifted(grid, grid, span, average, None)
        return replace(found, all=found.compared)
    span = range(-reach, reach + average) if stride is None else range(2 * stride - 1)
    steps = [step % period for step in span]
    return Shifted(logits[steps][:, steps], logits, span, average, period)


def _decisions(
    model: nn.Module, pixels: Tensor, labels: Tensor, logits: Shifted, generator: torch.Generator
) -> pd.DataFrame:
    """Return one row per image: what the network does to it.

    ``correct``: unshifted, 0 or 1. ``consistency``, ``mean_correct`` and ``worst`` (see ``shift.per_image``):
    over all circular shifts where the network is periodic, else over the grid; ``grid_consistency`` and
    ``grid_worst``: over the grid; ``averaged_consistency``: over the grid, logits averaged over phases.
    ``circular_sampled`` and ``crop_sampled``: agreement at random shifts.
    """
    found = shift.per_image(predictions(logits.all).flatten(0, 1), labels)
    on_grid = shift.per_image(predictions(logits.compared).flatten(0, 1), labels)
    averaged = shift.per_image(predictions(shift.average_phases(logits.grid, logits.average)).flatten(0, 1), labels)
    columns = {
        "correct": (predictions(logits.unshifted) == labels).double(),
        "consistency": found.consistency,
        "grid_consistency": on_grid.consistency,
        "averaged_consistency": averaged.consistency,
        "worst": found.worst,
        "grid_worst": on_grid.worst,
        "mean_correct": found.mean_correct,
    }
    for boundary, draws in DRAWS.items():
        columns[f"{boundary}_sampled"] = shift.sampled_agreement(model, pixels, REACH, generator, boundary, draws)
    return pd.DataFrame({name: values.cpu().numpy() for name, values in columns.items()})


def _means(decisions: pd.DataFrame, periodic: bool) -> dict[str, float]:
    """Return the metrics that are means over the images, and the standard errors of the sampled ones."""
    metrics = {name: float(decisions[column].mean()) for name, column in MEANS.items()}
    if periodic:
        metrics["exact_consistency"] = metrics["consistency"]
    for boundary in DRAWS:
        spread = float(decisions[f"{boundary}_sampled"].std(ddof=0))
        metrics[f"{boundary}_sampled_se"] = spread / len(decisions) ** 0.5
    return metrics


def _beyond_chance(logits: Shifted, labels: Tensor) -> dict[str, float]:
    """Return consistency corrected for equal shifts and for chance. A constant predictor has no kappa."""
    found = shift.consistency_of(predictions(logits.all).flatten(0, 1), labels)
    metrics = {"consistency_corrected": found.corrected, "kappa": found.kappa}
    return {name: value for name, value in metrics.items() if not isnan(value)}


def _phase_deviation(logits: Tensor) -> Tensor:
    """Return the standard deviation (n,) of each object's logit over the phases of one period, ddof 0."""
    return logits[..., 0].double().flatten(0, 1).std(dim=0, correction=0)


def _square(model: nn.Module, data: Dataset, stride: int, scale: float) -> Measurement:
    """Return the canvas map of a 13x13 square, its parts, and their numbers in units of ``scale``."""
    device, half = data.test.images.device, TEST_OBJECT_HALF_SIZE
    stamp = draw_rectangles(torch.tensor([[half, half]]), torch.tensor([[half, half]]), 2 * half + 1)[0]
    canvas = torch.zeros(data.in_shape, device=device)
    logits = shift.canvas_map(model, to_pixels(stamp[None].to(device))[0], canvas, stride).cpu()
    statistics = shift.map_statistics(logits)
    logits = logits[..., 0]
    metrics = {
        "square_range": statistics.range,
        "square_deviation": statistics.deviation,
        "square_flips": statistics.flips,
    }
    arrays = {"map": torch.sigmoid(logits).numpy()}
    parts = shift.decompose(logits, stride)
    if parts is not None and scale > 0:
        metrics |= {
            "square_interior_range": parts.phase_range,
            "square_aliasing": parts.phase_deviation / scale,
            "square_boundary": parts.boundary_deviation / scale,
            "square_noise": parts.noise_deviation / scale,
        }
        for name in ("phase", "boundary", "phases"):
            arrays[f"map_{name}"] = (getattr(parts, name) / scale).numpy()
    return Measurement(metrics, arrays=arrays)


def _conditions(model: nn.Module, few: Tensor, labels: Tensor, logits: Shifted) -> pd.DataFrame:
    """Return what decisions do under the shifts of the grid, one row per precision and averaging.

    bfloat16 on the first few images alone: on a CPU it takes several times as long as float32.
    """
    reduced = _bfloat16_grid(model, few, logits)
    wrap = len(logits.compared) == logits.period  # the first shift follows the last
    rows = []
    for precision, answers in (("float32", logits.grid), ("bfloat16", reduced)):
        averaged = shift.average_phases(answers, logits.average)
        single = answers[: len(averaged), : len(averaged)]
        for averaging, outputs in (("none", single), ("phases", averaged)):
            decided = shift.consistency_of(predictions(outputs).flatten(0, 1), labels[: outputs.shape[2]])
            steps = shift.step_changes(outputs, wrap)
            row = {"precision": precision, "averaging": averaging, "images": outputs.shape[2]}
            rows.append(row | asdict(decided) | asdict(steps))
    return pd.DataFrame(rows)


def _bfloat16_grid(model: nn.Module, pixels: Tensor, like: Shifted) -> Tensor:
    """Return the grid of logits of the network in bfloat16; shifts that differ by a period take one pass."""
    steps = [step % like.period if like.period else step for step in like.span]
    distinct = sorted(set(steps))
    logits = shift.shifted_logits(shift.BFloat16(model), pixels, distinct, distinct)
    places = [distinct.index(step) for step in steps]
    return logits[places][:, places]


def _headlines(conditions: pd.DataFrame) -> dict[str, float]:
    """Return the metrics that stand for the conditions."""
    rows = {(row["precision"], row["averaging"]): row for row in conditions.to_dict("records")}
    plain, averaged = rows["float32", "none"], rows["float32", "phases"]
    return {
        "flip_rate": plain["flip_rate"],
        "mean_absolute_change": plain["mean_absolute_change"],
        "averaged_accuracy": averaged["mean_accuracy"],
        "averaged_consistency": averaged["consistency"],
        "bfloat16_consistency": rows["bfloat16", "none"]["consistency"],
    }
