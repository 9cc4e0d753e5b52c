"""What a classifier of rectangles and circles answers when its object moves by a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import TYPE_CHECKING

from poolbench.core import (
    Benchmark,
    Cell,
    Claim,
    DataLocation,
    Figure,
    Grid,
    Measurement,
    Metric,
    TrainConfig,
    derive_seed,
)
from poolbench.registry import benchmarks

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset

SOURCE = "Scheidl 2022, 'Why pooling layers in deep learning can cause problems'"
POOLS = ("max", "avg", "strided_conv", "blur3", "max_blur3")
LARGEST_HALF_SIZE = 14
# Reach of shape_net with two pooling layers of the widest window (blur7, 3 px): 1 + 3, twice 1 + 3, four times 1.
REACH = 16
TEST_OBJECT_HALF_SIZE = 6


def load(cell: Cell, location: DataLocation, device: str) -> Dataset:
    from poolbench.data import load_dataset

    return load_dataset(cell.dataset, location, device, **cell.data)


def measure(cell: Cell, model: nn.Module, data: Dataset) -> Measurement:
    """Accuracy, the map of the article's test object, sampled and exact consistency."""
    import torch

    from poolbench.data.shapes import draw_rectangles, sample_shapes
    from poolbench.engine import evaluate
    from poolbench.engine.fit import to_pixels
    from poolbench.measures import shift

    device = data.test.images.device
    size = data.in_shape[1]
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "shifts"))
    half = TEST_OBJECT_HALF_SIZE
    stamp = draw_rectangles(torch.tensor([[half, half]]), torch.tensor([[half, half]]), 2 * half + 1)[0]
    canvas = torch.zeros(data.in_shape, device=device)
    logits = shift.canvas_map(model, to_pixels(stamp[None].to(device))[0], canvas)[..., 0]
    # The interior of the article's map: object and receptive field clear of the border.
    statistics = shift.map_statistics(logits, margin=min(half + REACH, (size - 1) // 2))

    period = 2 ** int(cell.model.get("num_pooling", 1))
    margin = LARGEST_HALF_SIZE + REACH + period
    objects, labels = sample_shapes(256, size, generator, str(device), margin=min(margin, size // 2 - 1))
    try:
        exact = shift.exact_consistency(model, to_pixels(objects), labels, period)
    except shift.NotPeriodic:
        # A pool that sees the whole map (ideal_lowpass) feels the zero padding from anywhere.
        exact = shift.Consistency(nan, nan, nan, nan)
    sampled, error = shift.sampled_consistency(model, to_pixels(data.test.images), reach=3, generator=generator)
    loss, accuracy = evaluate(model, data.test)
    return Measurement(
        {
            "accuracy": accuracy,
            "loss": loss,
            "map_range": statistics.range,
            "map_std": statistics.deviation,
            "interior_range": statistics.interior_range,
            "flips": statistics.flips,
            "consistency": exact.consistency,
            "consistency_corrected": exact.corrected,
            "worst_accuracy": exact.worst_accuracy,
            "sampled_consistency": sampled,
            "sampled_consistency_se": error,
        },
        arrays={"map": torch.sigmoid(logits).cpu().numpy()},
    )


def _grids(canvas: int, batches: int, train: TrainConfig, pools: Sequence[str] = POOLS) -> Sequence[Grid]:
    without = Grid(
        datasets=("shapes",),
        architectures=("shape_net",),
        pools=("none",),
        heads=("avg",),
        train=train,
        model={"num_pooling": 0},
        data={"canvas": canvas, "samples": batches * train.batch_size},
    )
    return [without, *(replace(without, pools=pools, model={"num_pooling": count}) for count in (1, 2))]


@benchmarks.register("shift_robustness")
def shift_robustness() -> Benchmark:
    """Does the answer change when the object moves by a pixel, and by which pooling?"""
    published = TrainConfig(epochs=1, batch_size=250)
    return Benchmark(
        name="shift_robustness",
        title="Shift robustness on drawn shapes",
        question="How much does the output move when the object moves, and what does each pooling add to it?",
        protocol=(
            "Rectangles against circles on an empty canvas, drawn afresh for every batch; three 3x3 convolutions "
            "with 0, 1 or 2 pooling layers and one logit, the mean over the canvas. The map holds the output for a "
            "13x13 square at every position; its interior shows aliasing alone, its border clipping and zero "
            "padding as well. Consistency is exact: over all shifts that keep the object inside, from one period."
        ),
        metrics=(
            Metric("accuracy", "accuracy", higher_is_better=True, tolerance=0.02),
            Metric("worst_accuracy", "worst-case accuracy", higher_is_better=True, tolerance=0.03),
            Metric("consistency", "exact consistency", higher_is_better=True, tolerance=0.01),
            Metric(
                "consistency_corrected",
                "chance-corrected consistency",
                higher_is_better=True,
                tolerance=0.02,
                headline=False,
            ),
            Metric("sampled_consistency", "sampled consistency", higher_is_better=True, tolerance=0.02),
            Metric(
                "sampled_consistency_se", "standard error of the sampled consistency", tolerance=0.01, headline=False
            ),
            Metric("map_range", "range of the map", higher_is_better=False, tolerance=0.05, unit="probability"),
            Metric("map_std", "deviation of the map", higher_is_better=False, tolerance=0.02, unit="probability"),
            Metric("interior_range", "interior range", higher_is_better=False, tolerance=0.1, unit="logit"),
            Metric("flips", "decision flips", higher_is_better=False, tolerance=0.02, unit="share of positions"),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.05, headline=False),
        ),
        presets={
            "smoke": [
                grid
                for grid in _grids(48, 2, replace(published, epochs=2, batch_size=32), ("max", "blur3"))
                if grid.model["num_pooling"] != 2
            ],
            "quick": _grids(64, 25, replace(published, epochs=10, batch_size=64, learning_rate=1e-2)),
            "paper": _grids(224, 100, replace(published, epochs=10)),
        },
        seeds={"smoke": 2, "quick": 5, "paper": 5},
        load=load,
        measure=measure,
        claims=(
            Claim(
                "pooling_breaks_shift_invariance",
                "Away from the border the output without pooling does not vary, with two max-pooling layers it does.",
                SOURCE,
                "interior_range",
                better={"num_pooling": 0},
                worse={"num_pooling": 2, "pool": "max"},
            ),
            Claim(
                "blur_lowers_aliasing",
                "Anti-aliased max pooling varies less under shifts than max pooling (two layers).",
                "Zhang 2019, 'Making convolutional networks shift-invariant again'",
                "interior_range",
                better={"pool": "max_blur3"},
                worse={"pool": "max"},
                where={"num_pooling": 2},
            ),
        ),
        figures=(
            Figure(
                "shift_map",
                "map",
                "P(circle) with the square centred at each position",
                ("map",),
                panels=("num_pooling", "pool"),
                label="P(circle)",
            ),
            Figure(
                "learning_curves",
                "curves",
                "Accuracy per epoch",
                ("val_accuracy",),
                panels=("num_pooling",),
                label="accuracy",
            ),
            Figure(
                "consistency",
                "intervals",
                "Exact consistency beside accuracy",
                ("consistency", "worst_accuracy", "accuracy"),
                panels=("num_pooling",),
            ),
        ),
    )
