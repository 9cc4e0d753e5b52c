"""How invariant layers become to rotation, with and without rotated training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from poolbench.choice import Choice
from poolbench.core import FROM_0_TO_1, NOT_NEGATIVE, Metric, Options, TrainConfig
from poolbench.plots import captions
from poolbench.registry import benchmarks
from poolbench.task import Benchmark, Figure, Grid, deferred
from poolbench_tasks.rotation_variance.claims import CLAIMS

draw = deferred("poolbench_tasks.rotation_variance.figures")
BY_LAYER = f"Mean over seeds of each layer, {captions.DEPTH} Grey: the same networks before training."
FIGURES = (
    Figure("accuracy", "Accuracy, trained on x tested on", captions.BARS, draw.accuracy),
    Figure(
        "angles",
        "Accuracy against the angle",
        "Mean over seeds with 95 % bands. Dashed: the same network averaged over four quarter turns.",
        draw.angles,
        draw.angles_of_cell,
    ),
    Figure(
        "layers_of_means",
        "TV, SV and V by layer (mean of each map)",
        BY_LAYER,
        draw.layers_of_means,
        draw.layers_of_means_of_cell,
    ),
    Figure(
        "layers_of_positions",
        "TV, SV and V by layer (every position a unit)",
        BY_LAYER,
        draw.layers_of_positions,
        draw.layers_of_positions_of_cell,
    ),
    Figure(
        "layers_turned_back",
        "TV, SV and V by layer (positions of maps turned back)",
        BY_LAYER,
        draw.layers_turned_back,
        draw.layers_turned_back_of_cell,
    ),
    Figure(
        "units",
        "V of every unit (mean of each map)",
        f"{captions.EXAMPLE_NETWORK} The units of each layer are sorted. Grey: dead units.",
        draw.units,
        draw.units_of_cell,
    ),
    Figure(
        "classes",
        "V by class and layer (mean of each map)",
        "Computed from the images of each class; mean over the units of a layer and over seeds.",
        draw.classes,
        draw.classes_of_cell,
    ),
    Figure("lee", "Local equivariance error by layer", BY_LAYER, draw.lee, draw.lee_of_cell),
    Figure(
        "cka",
        "Similarity of layers to themselves on turned images",
        "Linear CKA (unbiased) of a layer's outputs for rotated and upright images, mean over seeds; colour: depth. "
        "Grey: every layer with the images in another order, which is what chance gives.",
        draw.cka,
        draw.cka_of_cell,
    ),
    Figure(
        "learning_curves",
        "Accuracy per epoch",
        captions.LEARNING_CURVES,
        draw.learning_curves,
    ),
)
CHOICES = (
    Choice(
        "variant",
        "V of map means, where 0 is invariant",
        "plain",
        ("V_mean", "accuracy", "accuracy_rotated"),
    ),
)


@dataclass(frozen=True)
class Network:
    """A row of the study's protocol: the published pool and head, rate, epochs (plain, rotated) and sizes."""

    architecture: str
    pool: str
    head: str
    learning_rate: float
    epochs: tuple[int, int]
    model: Options
    schedule: str = "constant"


MNIST = (
    Network("simple_conv", "max", "flatten", 1e-3, (5, 15), {"width": 32, "hidden": 64}),
    Network("all_convolutional", "decimate", "avg", 1e-3, (15, 50), {"width": 16}),
    Network("vgg_like", "max", "flatten", 1e-5, (15, 50), {"width": 16, "hidden": 64}),
    Network("resnet18", "decimate", "avg", 1e-5, (15, 50), {"width": 64}),
)
CIFAR10 = (
    Network("simple_conv", "max", "flatten", 1e-3, (70, 120), {"width": 64, "hidden": 128}),
    Network("all_convolutional", "decimate", "avg", 1e-3, (32, 60), {"width": 64}),
    Network("vgg_like", "max", "flatten", 1e-5, (70, 150), {"width": 64, "hidden": 128}),
    Network("resnet50", "decimate", "avg", 1e-5, (70, 150), {"width": 64}),
)
# One cycle at a higher rate reaches in two thirds of the epochs what the constant rate does in all of them.
QUICK_GREY = (
    Network("simple_conv", "max", "flatten", 6e-3, (6, 12), {"width": 8, "hidden": 32}, "one_cycle"),
    Network("vgg_like", "max", "flatten", 1e-2, (3, 6), {"width": 8, "hidden": 32}, "one_cycle"),
)


@dataclass(frozen=True)
class RotationOptions:
    """How rotation is measured.

    ``angles`` (a multiple of 4) and test ``images`` of the variances; the first ``opinions`` of them for local
    equivariance error and maps rotated back, ``cka_images`` (at least 4) for CKA; ``protocol_2019`` adds V by the
    study's original protocol.
    """

    angles: int
    images: int
    opinions: int = 100
    cka_images: int = 100
    protocol_2019: bool = True


def _grids(
    dataset: str, networks: Sequence[Network], batch_size: int, measure: RotationOptions, frozen: bool = False
) -> list[Grid]:
    """Both ways of training; ``frozen`` adds the fault of 2019, batch statistics that stop after the first epoch."""
    return [
        Grid(
            datasets=(dataset,),
            architectures=(network.architecture,),
            pools=(network.pool,),
            heads=(network.head,),
            train=TrainConfig(
                epochs=epochs,
                batch_size=batch_size,
                learning_rate=network.learning_rate,
                schedule=network.schedule,
                augment=("rotation",) if variant == "rotated" else (),
                mask="disc",
                batch_norm="frozen" if frozen else "moving",
            ),
            variant=f"{variant}_frozen" if frozen else variant,
            model=network.model,
            measure=measure,
        )
        for network in networks
        for variant, epochs in zip(("plain", "rotated"), network.epochs, strict=True)
    ]


@benchmarks.register("rotation_variance")
def rotation_variance() -> Benchmark:
    """Which layers become rotation-invariant, and what does training on rotated images change?"""
    quick = RotationOptions(angles=8, images=200, opinions=10, protocol_2019=False)
    paper = RotationOptions(angles=16, images=10000)
    vgg = _grids("mnist_sample", QUICK_GREY[1:], 64, quick)
    return Benchmark(
        name="rotation_variance",
        title="Rotation variance of activations",
        question="How much do units move when images turn, and what do rotated training images and pooling change?",
        protocol=(
            "Each network is trained on plain and on rotated images (a fresh uniform angle per image and epoch) "
            "and tested on both. V = TV / SV compares the deviation of a unit over the angles of an image (TV) with "
            "that over the images at an angle (SV): 0 is invariant, 1 as sensitive to angle as to image. A disc "
            "masks every image, turned or not. A unit is the mean or maximum of a map, or each of its positions. "
            "Beside it: the same network with its first weights, and averaged over four quarter turns."
        ),
        metrics=(
            Metric("accuracy", "accuracy, plain", True, 0.02, per_image="answers.correct", gated=True, share=True),
            Metric("accuracy_rotated", "accuracy, rotated", True, 0.02, gated=True, share=True),
            Metric("accuracy_worst", "worst-case accuracy over the angles", True, 0.03, bounds=FROM_0_TO_1),
            Metric("V_mean", "V of map means", higher_is_better=False, tolerance=0.05, gated=True, bounds=NOT_NEGATIVE),
            Metric(
                "V_mean_stratified",
                "V of map means, stratified",
                higher_is_better=False,
                tolerance=0.05,
                bounds=NOT_NEGATIVE,
            ),
            Metric("V_max", "V of map maxima", higher_is_better=False, tolerance=0.05, bounds=NOT_NEGATIVE),
            Metric("V_none", "V of positions", higher_is_better=False, tolerance=0.05, bounds=NOT_NEGATIVE),
            *(
                Metric(name, title, better, 0.05, headline=False, bounds=NOT_NEGATIVE)
                for name, title, better in (
                    ("V_max_stratified", "V of map maxima, stratified", False),
                    ("V_none_stratified", "V of positions, stratified", False),
                    ("V_back", "V of layers, maps rotated back", False),
                    ("V_mean_random", "V of map means, random weights", None),
                    ("V_mean_stratified_random", "V of map means, stratified, random weights", None),
                    ("V_max_random", "V of map maxima, random weights", None),
                    ("V_max_stratified_random", "V of map maxima, stratified, random weights", None),
                    ("V_none_random", "V of positions, random weights", None),
                    ("V_none_stratified_random", "V of positions, stratified, random weights", None),
                    ("V_mean_2019", "V of map means, protocol of 2019", None),
                    ("V_mean_stratified_2019", "V of map means, stratified, protocol of 2019", None),
                    ("V_max_2019", "V of map maxima, protocol of 2019", None),
                    ("V_max_stratified_2019", "V of map maxima, stratified, protocol of 2019", None),
                    ("V_c4", "V of the logits averaged over quarter turns", None),
                    ("V_c4_quarters", "the same, of quarter turns alone (0 by construction)", None),
                )
            ),
            Metric(
                "V_mean_rise", "V of map means, upper half of the layers minus lower half", None, 0.05, headline=False
            ),
            Metric("V_mean_rise_random", "the same, random weights", None, 0.05, headline=False),
            *(
                Metric(name, title, True, 0.05, headline=False, bounds=FROM_0_TO_1)
                for name, title in (
                    ("accuracy_orbit", "accuracy, mean over the angles"),
                    ("accuracy_orbit_c4", "the same, averaged over quarter turns"),
                    ("accuracy_worst_c4", "worst-case accuracy, averaged over quarter turns"),
                    ("consistency", "consistency with 0 degrees"),
                    ("consistency_c4", "the same, averaged over quarter turns"),
                )
            ),
            Metric("dead", "dead units", unit="share", tolerance=0.05, headline=False, bounds=FROM_0_TO_1),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.1, headline=False, bounds=NOT_NEGATIVE),
        ),
        presets={
            "smoke": _grids(
                "mnist_sample",
                [_short(QUICK_GREY[0])],
                128,
                RotationOptions(angles=4, images=50, opinions=20, cka_images=20),
            ),
            "quick": _grids("mnist_sample", QUICK_GREY, 64, quick),
            # Where the gate sees drops of the tolerance; docs/lab/gate.md has the others.
            "nightly": [
                *_grids("mnist_sample", QUICK_GREY[:1], 64, quick),
                vgg[0],
            ],
            "paper": [
                *_grids("mnist", MNIST, 256, paper),
                *_grids("cifar10", CIFAR10, 256, paper),
                # simple_conv has no batch norm to freeze.
                *_grids("mnist", MNIST[1:], 256, paper, frozen=True),
            ],
        },
        seeds={"smoke": 2, "quick": 8, "nightly": 6, "paper": 5},
        options=RotationOptions,
        measure=deferred(f"{__name__}.measure").measure,
        version=4,
        claims=CLAIMS,
        choices=CHOICES,
        answers=deferred(f"{__name__}.answers").layers,
        figures=FIGURES,
    )


def _short(network: Network) -> Network:
    return Network(
        network.architecture, network.pool, network.head, network.learning_rate, (1, 1), {"width": 4, "hidden": 16}
    )
