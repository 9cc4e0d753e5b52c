"""What a classifier answers when its input moves by a pixel: drawn shapes on a canvas, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from poolbench.core import (
    Claim,
    Metric,
    Scalar,
    TrainConfig,
)
from poolbench.plots import captions
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred

SOURCE = "Scheidl 2022, 'Why pooling layers in deep learning can cause problems'"
POOLS = ("max", "avg", "strided_conv", "blur3", "max_blur3")
# Widths at which shape_net with max pooling has as many parameters as with strided_conv at width 3, by number of
# pooling layers (architectures.matched.matched_width): 225 for 226, 326 for 310.
MATCHED_WIDTHS = {1: 4, 2: 5}

draw = deferred("poolbench_tasks.shift_robustness.figures")
FIGURES = (
    Figure(
        "shift_map",
        "P(circle) with the square centred at each position",
        f"{captions.EXAMPLE_NETWORK} All panels share the colour scale.",
        draw.shift_map,
        draw.shift_map_of_cell,
    ),
    Figure(
        "map_parts",
        "The map's logit split into phase and border, in deviations of the logit over test objects",
        f"{captions.EXAMPLE_NETWORK} Each part has its own colour scale, but the values of the phases share that of "
        "the phase part, of which a detail is shown.",
        draw.map_parts,
        draw.map_parts_of_cell,
    ),
    Figure(
        "consistency_accuracy",
        "Consistency against accuracy, and what accuracy does not explain",
        captions.SCATTER,
        draw.consistency_accuracy,
    ),
    Figure("pool_padding", "Each pool with each padding", captions.HEATMAP, draw.pool_padding),
    Figure(
        "sensitivity",
        "How far features move with a shift of the input, stage by stage",
        f"Mean over shifts and seeds of each stage, {captions.DEPTH} Motion undone: the features are shifted back; "
        "what remains comes from aliasing and the border.",
        draw.sensitivity,
        draw.sensitivity_of_cell,
    ),
    Figure(
        "learning_curves",
        "Accuracy per epoch",
        captions.LEARNING_CURVES,
        draw.learning_curves,
        draw.learning_curves_of_cell,
    ),
    Figure("consistency", "Consistency beside accuracy", captions.INTERVALS, draw.consistency),
)


@dataclass(frozen=True)
class ShiftOptions:
    """How shifts are measured.

    ``samples``: test images of the sampled estimators. Drawn shapes: ``objects``, the number of whole objects.
    Image sets: ``images`` under the circular shifts of up to ``reach`` px, logits also averaged over
    ``average`` x ``average`` neighbouring shifts; ``exact_images`` under all circular shifts.
    """

    samples: int
    objects: int = 0
    images: int = 0
    reach: int = 1
    average: int = 2
    exact_images: int = 0


def _shape_grids(
    canvas: int, batches: int, train: TrainConfig, measure: ShiftOptions, pools: Sequence[str] = POOLS
) -> list[Grid]:
    without = Grid(
        datasets=("shapes",),
        architectures=("shape_net",),
        pools=("none",),
        heads=("avg",),
        train=train,
        model={"num_pooling": 0},
        data={"canvas": canvas, "samples": batches * train.batch_size},
        measure=measure,
    )
    return [without, *(replace(without, pools=pools, model={"num_pooling": count}) for count in (1, 2))]


def _matched_grids(canvas: int, batches: int, train: TrainConfig, measure: ShiftOptions) -> list[Grid]:
    """Max pooling in networks as large as those of strided_conv: what more parameters alone bring."""
    return [
        replace(grid, variant="matched_width", model={**grid.model, "width": MATCHED_WIDTHS[count]})
        for grid in _shape_grids(canvas, batches, train, measure, ("max",))
        if isinstance(count := grid.model["num_pooling"], int) and count in MATCHED_WIDTHS
    ]


def _image_grids(
    dataset: str,
    architecture: str,
    pools: Sequence[str],
    train: TrainConfig,
    measure: ShiftOptions,
    model: Mapping[str, Scalar] | None = None,
    data: Mapping[str, Scalar] | None = None,
) -> list[Grid]:
    """Every pool with either padding, trained on images as they are and on shifted ones; the published head is avg."""
    return [
        Grid(
            datasets=(dataset,),
            architectures=(architecture,),
            pools=pools,
            heads=("avg",),
            train=replace(train, augment=augment),
            variant=variant,
            padding_mode=padding,
            model=model or {},
            data=data or {},
            measure=measure,
        )
        for padding in ("zeros", "circular")
        for variant, augment in (("plain", ()), ("shifted", ("shift",)))
    ]


@benchmarks.register("shift_robustness")
def shift_robustness() -> Benchmark:
    """Does the answer change when the object moves by a pixel, and by which pooling?"""
    published = TrainConfig(epochs=1, batch_size=250)
    images = TrainConfig(epochs=60, batch_size=128)
    few = ShiftOptions(images=64, reach=1, average=2, exact_images=8, samples=250)
    whole = ShiftOptions(objects=1000, samples=1000)
    many = ShiftOptions(images=10000, reach=3, average=4, exact_images=1000, samples=10000)
    # A bare polyphase pool stands for a stride (decimate), one behind a dense maximum for max pooling.
    residual = ("decimate", "aps", "max", "avg", "blur3", "max_blur3", "max_aps")
    plain = ("max", "avg", "blur3", "max_blur3", "max_aps")
    return Benchmark(
        name="shift_robustness",
        title="Shift robustness",
        question="How much does the answer change when the input moves, and what does each pooling add to it?",
        protocol=(
            "Shapes: rectangles against circles on an empty canvas, drawn afresh for every batch; three 3x3 "
            "convolutions with 0, 1 or 2 pooling layers and one logit, the mean over the canvas. The map holds the "
            "output for a 13x13 square at every position, split into what the position modulo the stride does "
            "(aliasing) and what the border does (clipping, zero padding), both in units of the deviation of the "
            "logit over test objects. Consistency is exact: over all shifts that keep the object inside. Images: "
            "garments or CIFAR10, each pooling with zero and with circular padding, trained on images as they are "
            "and on shifted ones (4 px). Consistency is over a stated grid of circular shifts (1 px in quick, 3 px "
            "in paper), exact consistency over all circular shifts where the network is periodic; single network or "
            "averaged over phases (the article's remedy: 2x2 shifts in quick, 4x4 in paper), float32 or bfloat16."
        ),
        version=4,
        metrics=(
            Metric("accuracy", "accuracy", higher_is_better=True, tolerance=0.02),
            Metric("worst_accuracy", "worst-case accuracy", higher_is_better=True, tolerance=0.03),
            Metric("consistency", "consistency", higher_is_better=True, tolerance=0.01),
            Metric("exact_consistency", "exact consistency", higher_is_better=True, tolerance=0.01),
            Metric("flip_rate", "flips per 1-px step", higher_is_better=False, tolerance=0.01),
            Metric("mean_absolute_change", "change per 1-px step", False, 0.01, "probability"),
            Metric("aliasing", "aliasing", higher_is_better=False, tolerance=0.05, unit="logit deviations"),
            Metric("boundary", "border effect", higher_is_better=False, tolerance=0.1, unit="logit deviations"),
            Metric("flips", "decision flips on the map", False, 0.02, "share of positions"),
            Metric("averaged_consistency", "consistency, phases averaged", higher_is_better=True, tolerance=0.01),
            Metric("averaged_accuracy", "accuracy, phases averaged", True, 0.02, headline=False),
            Metric("bfloat16_consistency", "consistency in bfloat16", True, 0.01, headline=False),
            Metric("subpixel_consistency", "consistency, half-pixel shifts", True, 0.01, headline=False),
            Metric("consistency_corrected", "consistency of different shifts", True, 0.02, headline=False),
            Metric("kappa", "consistency beyond chance", True, 0.05, headline=False),
            Metric("mean_shifted_accuracy", "accuracy, mean over shifts", True, 0.02, headline=False),
            Metric("circular_sampled", "sampled consistency, circular shifts", True, 0.02, headline=False),
            Metric("circular_sampled_se", "its standard error", tolerance=0.01, headline=False),
            Metric("crop_sampled", "sampled consistency, crop shifts", True, 0.02, headline=False),
            Metric("crop_sampled_se", "its standard error", tolerance=0.01, headline=False),
            Metric("circular_legacy", "consistency as published, one pair a batch", True, 0.05, headline=False),
            Metric("interior_range", "interior range", False, 0.1, "logit", headline=False),
            Metric("noise", "rounding noise", False, 0.001, "logit deviations", headline=False),
            Metric("map_range", "range of the map", False, 0.05, "probability", headline=False),
            Metric("map_std", "deviation of the map", False, 0.02, "probability", headline=False),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.05, headline=False),
        ),
        presets={
            "smoke": [
                *(
                    grid
                    for grid in _shape_grids(
                        48,
                        2,
                        replace(published, epochs=2, batch_size=32),
                        ShiftOptions(objects=32, samples=100),
                        ("max", "blur3"),
                    )
                    if grid.model["num_pooling"] != 2
                ),
                _image_grids(
                    "fashion_mnist_sample",
                    "vgg_like",
                    ("max_aps",),
                    replace(images, epochs=1),
                    replace(few, images=20, exact_images=4),
                    {"width": 4, "hidden": 16},
                    {"pad": 2},
                )[-1],
            ],
            "quick": [
                *_shape_grids(
                    64,
                    25,
                    replace(published, epochs=10, batch_size=64, learning_rate=1e-2),
                    ShiftOptions(objects=128, samples=500),
                ),
                *_image_grids(
                    "fashion_mnist_sample",
                    "vgg_like",
                    ("max", "max_blur3", "max_aps"),
                    TrainConfig(epochs=2, batch_size=64, learning_rate=1e-2, schedule="one_cycle"),
                    few,
                    {"width": 8, "hidden": 32},
                    {"pad": 2},
                ),
            ],
            "paper": [
                *_shape_grids(224, 100, replace(published, epochs=10), whole, (*POOLS, "max_aps", "decimate", "aps")),
                *_matched_grids(224, 100, replace(published, epochs=10), whole),
                *_image_grids("fashion_mnist", "resnet20", residual, images, many),
                *_image_grids("fashion_mnist", "vgg_like", plain, images, many, data={"pad": 2}),
                *_image_grids("cifar10", "resnet20", residual, images, many),
                *_image_grids("cifar10", "vgg_like", plain, images, many),
            ],
        },
        seeds={"smoke": 2, "quick": 5, "paper": 5},
        options=ShiftOptions,
        measure=deferred(f"{__name__}.measure").measure,
        claims=(
            Claim(
                "pooling_breaks_shift_invariance",
                "Away from the border the output without pooling does not vary, with two max-pooling layers it does.",
                SOURCE,
                "aliasing",
                better={"num_pooling": 0},
                worse={"num_pooling": 2, "pool": "max"},
            ),
            Claim(
                "blur_lowers_aliasing",
                "Anti-aliased max pooling varies less under shifts than max pooling (two layers).",
                "Zhang 2019, 'Making convolutional networks shift-invariant again'",
                "aliasing",
                better={"pool": "max_blur3"},
                worse={"pool": "max"},
                where={"num_pooling": 2},
            ),
            Claim(
                "aps_keeps_decisions",
                "With circular padding adaptive polyphase sampling keeps more decisions under shifts than max pooling.",
                "Chaman and Dokmanic 2021, 'Truly shift-invariant convolutional neural networks'",
                "consistency",
                better={"pool": "max_aps"},
                worse={"pool": "max"},
                where={"padding_mode": "circular", "variant": "plain"},
            ),
            Claim(
                "blur_raises_accuracy",
                "Anti-aliased max pooling raises the accuracy of networks trained without shifted images.",
                "Zhang 2019, 'Making convolutional networks shift-invariant again'",
                "accuracy",
                better={"pool": "max_blur3"},
                worse={"pool": "max"},
                where={"variant": "plain"},
            ),
            Claim(
                "shifted_training_keeps_decisions",
                "Networks trained on shifted images keep more decisions under shifts.",
                SOURCE,
                "consistency",
                better={"variant": "shifted"},
                worse={"variant": "plain"},
            ),
        ),
        figures=FIGURES,
    )
