"""How many convolutions are enough: depth, what each block contributes, and whether noisy maps carry nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poolbench.choice import Choice
from poolbench.core import FROM_0_TO_1, NOT_NEGATIVE, Metric, TrainConfig
from poolbench.plots import captions
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred
from poolbench_tasks.depth_ablation.claims import CLAIMS

FOLDS = 5
DEPTHS = (1, 2, 3, 4, 5)
BY_STAGE = (
    "Of the deepest networks, mean over the folds with its 95 % band. Stage 0 is the image, stage k the maps after "
    "block k. Grey: the same networks before training; dashed: the image itself, averaged to the size of the maps."
)

draw = deferred("poolbench_tasks.depth_ablation.figures")
say = deferred("poolbench_tasks.depth_ablation.answers")
FIGURES = (
    Figure("accuracy", "Accuracy by number of blocks", captions.BY_FIELD, draw.accuracy),
    Figure("stages", "Noise and use of the maps, stage by stage", BY_STAGE, draw.stages),
    Figure(
        "replaced",
        "Accuracy with the maps of one stage replaced",
        "Of the deepest networks, mean over the folds. 'noise' shuffles a unit's values over images and positions, "
        "'mean' is a unit's mean value, 'positions shuffled' keeps the values of each image, 'map mean' the mean of "
        "each map, 'skipped' leaves the block out (its input, averaged to size). The network is not trained again, but "
        "'skipped, read anew' fits a new linear classifier to the last maps.",
        draw.replaced,
    ),
    Figure("units", "Dead and duplicate units, and effective rank", BY_STAGE, draw.units),
    Figure(
        "maps",
        "The most active maps of each stage",
        "One test image; every stage has its own scale. Below: how noisy the maps look (1 is white noise), how noisy "
        "the image would at their size, and the accuracy of a linear probe on the stage.",
        draw_cell=draw.maps,
    ),
)


@dataclass(frozen=True)
class DepthOptions:
    """``images``: test images whose maps are measured; ``probe_images``: training images that a probe is fitted to."""

    images: int = 200
    probe_images: int = 500


def _grids(
    dataset: str,
    train: TrainConfig,
    width: int,
    pools: Sequence[str] = ("decimate",),
    heads: Sequence[str] = ("avg", "max"),
    depths: Sequence[int] = DEPTHS,
    measure: DepthOptions | None = None,
) -> list[Grid]:
    """One variant per depth: a network has learned if it is good for its own depth."""
    return [
        Grid(
            datasets=(dataset,),
            architectures=("strided_net",),
            pools=pools,
            heads=heads,
            train=train,
            variant=f"depth{blocks}",
            model={"published": True, "width": width, "blocks": blocks},
            measure=measure,
        )
        for blocks in depths
    ]


FROM_MINUS_1_TO_1 = (-1.0, 1.0)
"""Bounds of rank correlations and of differences of two accuracies."""

METRICS = (
    Metric("accuracy", "accuracy", higher_is_better=True, tolerance=0.02, share=True),
    Metric("train_accuracy", "training accuracy", tolerance=0.02, bounds=FROM_0_TO_1),
    Metric("loss", "loss", higher_is_better=False, tolerance=0.05, headline=False, bounds=NOT_NEGATIVE),
    Metric("probe_last", "probe accuracy, last stage", higher_is_better=True, tolerance=0.02, share=True),
    Metric(
        "probe_gain", "gain of probe accuracy by the last two blocks", True, tolerance=0.02, bounds=FROM_MINUS_1_TO_1
    ),
    Metric("excess_change", "excess noise, last judged stage minus first", tolerance=0.05),
    Metric("excess_change_untrained", "excess noise, last minus first, untrained", tolerance=0.05, headline=False),
    Metric(
        "smooth_stages",
        "rank correlation of smoothness and probe accuracy, stages",
        tolerance=0.1,
        bounds=FROM_MINUS_1_TO_1,
    ),
    Metric(
        "smooth_units",
        "rank correlation of smoothness and class separation, units",
        tolerance=0.05,
        bounds=FROM_MINUS_1_TO_1,
    ),
    Metric(
        "layout_cost",
        "accuracy lost with the positions of the last maps shuffled",
        tolerance=0.02,
        bounds=FROM_MINUS_1_TO_1,
    ),
    Metric("last_block_gain", "gain of probe accuracy by the last block", tolerance=0.02, bounds=FROM_MINUS_1_TO_1),
    Metric("dead", "dead units", higher_is_better=False, tolerance=0.02, share=True),
    Metric("duplicates", "duplicate units", higher_is_better=False, tolerance=0.02, share=True),
    Metric(
        "rank_last",
        "effective rank, last stage",
        tolerance=0.02,
        unit="of the units",
        headline=False,
        bounds=FROM_0_TO_1,
    ),
)


@benchmarks.register("depth_ablation")
def depth_ablation() -> Benchmark:
    """How many convolutions are enough, and do maps that look noisy carry nothing?"""
    train = TrainConfig(epochs=6, batch_size=32, learning_rate=1e-2, schedule="one_cycle", augment=("flip",))
    brief = TrainConfig(epochs=1, batch_size=32, learning_rate=1e-2, train_images=200)
    return Benchmark(
        name="depth_ablation",
        title="How deep is deep enough",
        question=(
            "How many convolutions are enough, which pooling makes depth pay, "
            "and do maps that look noisy carry nothing?"
        ),
        protocol=(
            "One to five blocks of a 3x3 convolution, a halving, BatchNorm, ReLU and dropout, then the head and two "
            "linear layers, at 64 px: five blocks then end in a map of 2x2. Stratified 5-fold cross-validation over "
            "all images of the data set: seeds 0 to 4 are the folds of one partition, 5 to 9 those of the next. All "
            "depths, heads and pools share folds, initial weights and order. Intervals allow for the overlap of the "
            "training sets (Nadeau and Bengio 2003). Each trained network is also taken apart: the maps of one stage "
            "are replaced, or one block is skipped, and linear probes read the class from every stage."
        ),
        metrics=METRICS,
        presets={
            "smoke": _grids("tops_sample", brief, 4, heads=("avg",), depths=(1, 3), measure=DepthOptions(20, 40)),
            "quick": _grids("tops_sample", train, 4, measure=DepthOptions(100, 300)),
            "paper": _grids(
                "cats_dogs",
                TrainConfig(epochs=30, batch_size=64, learning_rate=3e-3, schedule="one_cycle", augment=("flip",)),
                16,
                pools=("decimate", "max", "max_blur3", "max_aps"),
                heads=("avg", "max", "gem", "flatten"),
            ),
        },
        seeds={"smoke": 2, "quick": 5, "paper": 10},
        options=DepthOptions,
        measure=deferred(f"{__name__}.measure").measure,
        folds=FOLDS,
        claims=CLAIMS,
        choices=(Choice("blocks", "Accuracy", 5, ("accuracy",)),),
        answers=say.sufficient_depths,
        figures=FIGURES,
        maps=("feature_maps",),
    )
