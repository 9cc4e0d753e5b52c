"""What a classifier answers when its input moves by a pixel: drawn shapes on a canvas, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from math import isnan
from typing import TYPE_CHECKING

from poolbench.core import (
    Cell,
    Claim,
    DataLocation,
    Measurement,
    Metric,
    Options,
    Scalar,
    TrainConfig,
    derive_seed,
)
from poolbench.plots import captions
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred

if TYPE_CHECKING:
    import pandas as pd
    from torch import Generator, Tensor, nn

    from poolbench.data import Dataset

SOURCE = "Scheidl 2022, 'Why pooling layers in deep learning can cause problems'"
POOLS = ("max", "avg", "strided_conv", "blur3", "max_blur3")
LARGEST_HALF_SIZE = 14
# Reach of shape_net with two pooling layers of the widest window (blur7, 3 px): 1 + 3, twice 1 + 3, four times 1.
NETWORK_REACH = 16
TEST_OBJECT_HALF_SIZE = 6
REACH = 3  # pixels, of the shifts of whole images: the published {-3..2} and its mirror image
HALF_PIXELS = [(dy / 2, dx / 2) for dy in range(-2, 3) for dx in range(-2, 3)]
SENSITIVITY_IMAGES = 16
SENSITIVITY_SHIFTS = [(0, 1), (1, 0), (1, 1), (2, 2), (3, 3), (4, 4)]

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


def load(cell: Cell, location: DataLocation, device: str) -> Dataset:
    from poolbench.data import load_dataset, padded

    options = dict(cell.data)
    pad = int(options.pop("pad", 0))
    data = load_dataset(cell.dataset, location, device, **options)
    return padded(data, pad) if pad else data


def measure(cell: Cell, model: nn.Module, data: Dataset) -> Measurement:
    """Consistency under shifts beside accuracy; for drawn shapes the map of the article's test object as well."""
    import torch

    from poolbench.engine import evaluate
    from poolbench.engine.fit import to_pixels
    from poolbench.measures import shift

    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "shifts"))
    loss, accuracy = evaluate(model, data.test)
    metrics = {"accuracy": accuracy, "loss": loss}
    test = to_pixels(data.test.images[: int(cell.measure["samples"])])
    for boundary in ("circular", "crop"):
        found = shift.sampled_consistency(model, test, REACH, generator, boundary)
        metrics[f"{boundary}_sampled"], metrics[f"{boundary}_sampled_se"] = found
    metrics["circular_legacy"] = shift.legacy_consistency(model, test, generator)
    if cell.dataset == "shapes":
        shifted = _shapes_under_shifts(cell, model, data, generator)
    else:
        shifted = _images_under_shifts(cell, model, data)
    return Measurement({**metrics, **shifted.metrics}, shifted.tables, shifted.arrays)


def _shapes_under_shifts(cell: Cell, model: nn.Module, data: Dataset, generator: Generator) -> Measurement:
    """The test object's map and its parts; consistency over all shifts that keep an object inside."""
    import torch

    from poolbench.data.shapes import draw_rectangles, sample_shapes
    from poolbench.engine.fit import to_pixels
    from poolbench.measures import shift

    device, size = data.test.images.device, data.in_shape[1]
    stride = 2 ** int(cell.model.get("num_pooling", 1))
    half = TEST_OBJECT_HALF_SIZE
    stamp = draw_rectangles(torch.tensor([[half, half]]), torch.tensor([[half, half]]), 2 * half + 1)[0]
    canvas = torch.zeros(data.in_shape, device=device)
    logits = shift.canvas_map(model, to_pixels(stamp[None].to(device))[0], canvas, stride).cpu()
    statistics = shift.map_statistics(logits)
    logits = logits[..., 0]
    metrics = {"map_range": statistics.range, "map_std": statistics.deviation, "flips": statistics.flips}
    arrays = {"map": torch.sigmoid(logits).numpy()}
    parts = shift.decompose(logits, stride)
    # Networks differ in the scale of their logit: deviations are told in units of how far apart objects lie.
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

    margin = min(LARGEST_HALF_SIZE + NETWORK_REACH + stride, size // 2 - 1)
    count = int(cell.measure["objects"])
    objects, labels = sample_shapes(count, size, generator, str(device), margin=margin)
    pixels = to_pixels(objects)
    try:
        answers = {"float32": shift.period_of_logits(model, pixels, stride)}
        span, periodic = range(stride), True
    except shift.NotPeriodic:
        # A pool that sees the whole map (ideal_lowpass) feels the zero padding from anywhere.
        span, periodic = range(-REACH, REACH + stride), False
        answers = {"float32": shift.shifted_logits(model, pixels, span, span)}
    answers["bfloat16"] = shift.shifted_logits(shift.BFloat16(model), pixels, span, span)
    conditions = _conditions(answers, labels, stride, periodic)
    if periodic:
        # One period is all that occurs.
        metrics["exact_consistency"] = conditions["float32", "none"]["consistency"]
    sensitivity = shift.layer_sensitivity(model, pixels[:SENSITIVITY_IMAGES], SENSITIVITY_SHIFTS)
    return Measurement(
        {**metrics, **_headlines(conditions)}, {"conditions": _as_table(conditions), "sensitivity": sensitivity}, arrays
    )


def _images_under_shifts(cell: Cell, model: nn.Module, data: Dataset) -> Measurement:
    """Consistency over a stated grid of circular shifts, and over all of them where the network is periodic."""
    from poolbench.engine.fit import to_pixels
    from poolbench.measures import shift

    chosen = data.test.take(_subset(len(data.test), int(cell.measure["images"])).to(data.test.labels.device))
    pixels, labels = to_pixels(chosen.images), chosen.labels
    reach, average = int(cell.measure["reach"]), int(cell.measure["average"])
    span = range(-reach, reach + average)
    networks = {"float32": model, "bfloat16": shift.BFloat16(model)}
    logits = {name: shift.shifted_logits(network, pixels, span, span) for name, network in networks.items()}
    conditions = _conditions(logits, labels, average, periodic=False)
    metrics = _headlines(conditions)
    metrics["subpixel_consistency"] = shift.subpixel_consistency(model, pixels, labels, HALF_PIXELS).consistency
    exact = int(cell.measure["exact_images"])
    # With zero padding or a map of odd size the stated grid is the only measure.
    with suppress(shift.NotPeriodic):
        metrics["exact_consistency"] = shift.exact_consistency(
            model, pixels[:exact], labels[:exact], shift.total_stride(model, pixels[0])
        ).consistency
    sensitivity = shift.layer_sensitivity(model, pixels[:SENSITIVITY_IMAGES], SENSITIVITY_SHIFTS)
    return Measurement(metrics, {"conditions": _as_table(conditions), "sensitivity": sensitivity})


def _conditions(
    logits: Mapping[str, Tensor], labels: Tensor, average: int, periodic: bool
) -> dict[tuple[str, str], dict[str, float]]:
    """Return by (precision, averaging) what decisions do under the same set of circular shifts.

    ``logits`` (rows, columns, n, outputs) by precision, over one period where ``periodic``, else over the
    stated shifts and the ``average`` - 1 further ones that averaging the last of them takes.
    """
    import torch

    from poolbench.measures import shift
    from poolbench.measures.classification import predictions

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


def _as_table(conditions: dict[tuple[str, str], dict[str, float]]) -> pd.DataFrame:
    import pandas as pd

    rows = [{"precision": key[0], "averaging": key[1], **values} for key, values in conditions.items()]
    return pd.DataFrame(rows)


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
    import torch

    return torch.randperm(total, generator=torch.Generator().manual_seed(0))[:wanted]


def _shape_grids(
    canvas: int, batches: int, train: TrainConfig, measure: Options, pools: Sequence[str] = POOLS
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


def _image_grids(
    dataset: str,
    architecture: str,
    pools: Sequence[str],
    train: TrainConfig,
    measure: Options,
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
            model={**(model or {}), "padding_mode": padding},
            data=data or {},
            measure=measure,
        )
        for padding in ("zeros", "circular")
        for variant, augment in (("plain", "none"), ("shifted", "shift"))
    ]


@benchmarks.register("shift_robustness")
def shift_robustness() -> Benchmark:
    """Does the answer change when the object moves by a pixel, and by which pooling?"""
    published = TrainConfig(epochs=1, batch_size=250)
    images = TrainConfig(epochs=60, batch_size=128)
    few: Options = {"images": 64, "reach": 1, "average": 2, "exact_images": 8, "samples": 250}
    many: Options = {"images": 10000, "reach": 3, "average": 4, "exact_images": 1000, "samples": 10000}
    residual = ("decimate", "max", "avg", "blur3", "max_blur3", "aps")
    plain = ("max", "avg", "blur3", "max_blur3", "aps")
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
        version=2,
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
                        {"objects": 32, "samples": 100},
                        ("max", "blur3"),
                    )
                    if grid.model["num_pooling"] != 2
                ),
                _image_grids(
                    "fashion_mnist_sample",
                    "vgg_like",
                    ("aps",),
                    replace(images, epochs=1),
                    {**few, "images": 20, "exact_images": 4},
                    {"width": 4, "hidden": 16},
                    {"pad": 2},
                )[-1],
            ],
            "quick": [
                *_shape_grids(
                    64,
                    25,
                    replace(published, epochs=10, batch_size=64, learning_rate=1e-2),
                    {"objects": 128, "samples": 500},
                ),
                *_image_grids(
                    "fashion_mnist_sample",
                    "vgg_like",
                    ("max", "max_blur3", "aps"),
                    TrainConfig(epochs=2, batch_size=64, learning_rate=1e-2, schedule="one_cycle"),
                    few,
                    {"width": 8, "hidden": 32},
                    {"pad": 2},
                ),
            ],
            "paper": [
                *_shape_grids(
                    224, 100, replace(published, epochs=10), {"objects": 1000, "samples": 1000}, (*POOLS, "aps")
                ),
                *_image_grids("fashion_mnist", "resnet20", residual, images, many),
                *_image_grids("fashion_mnist", "vgg_like", plain, images, many, data={"pad": 2}),
                *_image_grids("cifar10", "resnet20", residual, images, many),
                *_image_grids("cifar10", "vgg_like", plain, images, many),
            ],
        },
        seeds={"smoke": 2, "quick": 5, "paper": 5},
        load=load,
        measure=measure,
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
                better={"pool": "aps"},
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
