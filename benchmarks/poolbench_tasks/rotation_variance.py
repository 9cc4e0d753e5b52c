"""How invariant layers become to rotation, with and without rotated training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
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
    Options,
    Scalar,
    TrainConfig,
    derive_seed,
)
from poolbench.registry import benchmarks

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset

SOURCE = "Quiroga et al. 2019, 'Measuring (in)variances in convolutional networks'"


@dataclass(frozen=True)
class Network:
    """A row of the study's protocol: the published pool and head, rate, epochs (plain, rotated) and sizes."""

    architecture: str
    pool: str
    head: str
    learning_rate: float
    epochs: tuple[int, int]
    model: Options


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
QUICK_GREY = (
    Network("simple_conv", "max", "flatten", 2e-3, (8, 16), {"width": 8, "hidden": 32}),
    Network("all_convolutional", "decimate", "avg", 1e-2, (6, 10), {"width": 8}),
    Network("vgg_like", "max", "flatten", 3e-3, (5, 8), {"width": 8, "hidden": 32}),
    Network("resnet18", "decimate", "avg", 3e-3, (4, 7), {"width": 4}),
)
QUICK_COLOUR = (
    Network("simple_conv", "max", "flatten", 1e-3, (8, 12), {"width": 8, "hidden": 32}),
    Network("vgg_like", "max", "flatten", 3e-3, (4, 6), {"width": 8, "hidden": 32}),
)


def load(cell: Cell, location: DataLocation, device: str) -> Dataset:
    from poolbench.data import load_dataset

    return load_dataset(cell.dataset, location, device)


def measure(cell: Cell, model: nn.Module, data: Dataset) -> Measurement:
    """Accuracy on plain and rotated test images, and V of every unit and layer."""
    import torch

    from poolbench.data.augment import rotate
    from poolbench.engine import evaluate
    from poolbench.engine.fit import to_pixels
    from poolbench.measures.rotation import activation_variance, layer_means

    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "test angles"))
    device = data.test.images.device

    def turned(pixels: torch.Tensor) -> torch.Tensor:
        return rotate(pixels, (torch.rand(len(pixels), generator=generator) * 360 - 180).to(device))

    loss, accuracy = evaluate(model, data.test, masked=True)
    _, rotated = evaluate(model, data.test, masked=True, transform=turned)
    images = int(cell.measure["images"])
    angles = [360 * step / int(cell.measure["angles"]) for step in range(int(cell.measure["angles"]))]
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:images].to(device)
    subset = data.test.take(chosen)
    units = activation_variance(model, to_pixels(subset.images, masked=True), angles, subset.labels)
    layers = layer_means(units)
    metrics = {"accuracy": accuracy, "loss": loss, "accuracy_rotated": rotated, "dead": float(units["dead"].mean())}
    # The study's global V: the mean over the network's units, dead and infinite ones left out.
    means = units.replace(inf, nan).groupby("aggregation")[["V", "V_stratified"]].mean()
    for name in ("mean", "max"):
        metrics[f"V_{name}"] = float(means["V"][name])
        metrics[f"V_{name}_stratified"] = float(means["V_stratified"][name])
    return Measurement(metrics, tables={"units": units, "layers": layers})


def _grids(dataset: str, networks: Sequence[Network], batch_size: int, measure: dict[str, Scalar]) -> list[Grid]:
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
                augment="rotation" if variant == "rotated" else "none",
            ),
            variant=variant,
            model=network.model,
            data={"mask": "disc"},
            measure=measure,
        )
        for network in networks
        for variant, epochs in zip(("plain", "rotated"), network.epochs, strict=True)
    ]


@benchmarks.register("rotation_variance")
def rotation_variance() -> Benchmark:
    """Which layers stop caring about rotation, and what training on rotated images changes?"""
    quick: dict[str, Scalar] = {"angles": 8, "images": 200}
    paper: dict[str, Scalar] = {"angles": 16, "images": 10000}
    return Benchmark(
        name="rotation_variance",
        title="Rotation variance of activations",
        question="How much do units move when images turn, and what do rotated training images and pooling change?",
        protocol=(
            "Each network is trained on plain and on rotated images (a fresh uniform angle per image and epoch) "
            "and tested on both. V = TV / SV compares the deviation of a unit over the angles of an image (TV) with "
            "that over the images at an angle (SV): 0 is invariant, 1 as sensitive to angle as to image. A disc "
            "masks every image, turned or not. Feature maps are reduced to their mean or maximum first."
        ),
        metrics=(
            Metric("accuracy", "accuracy, plain", higher_is_better=True, tolerance=0.02),
            Metric("accuracy_rotated", "accuracy, rotated", higher_is_better=True, tolerance=0.02),
            Metric("V_mean", "V of map means", higher_is_better=False, tolerance=0.05),
            Metric("V_mean_stratified", "V of map means, stratified", higher_is_better=False, tolerance=0.05),
            Metric("V_max", "V of map maxima", higher_is_better=False, tolerance=0.05),
            Metric(
                "V_max_stratified",
                "V of map maxima, stratified",
                higher_is_better=False,
                tolerance=0.05,
                headline=False,
            ),
            Metric("dead", "dead units", unit="share", tolerance=0.05, headline=False),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.1, headline=False),
        ),
        presets={
            "smoke": _grids("mnist_sample", [_short(QUICK_GREY[0])], 128, {"angles": 4, "images": 50}),
            "quick": [
                *_grids("mnist_sample", QUICK_GREY, 64, quick),
                # The comparison of pools, on the network whose published pool is max.
                *(
                    grid.select(pools=("avg", "max_blur3"))
                    for grid in _grids("mnist_sample", QUICK_GREY[2:3], 64, quick)
                ),
                *_grids("colour_shapes", QUICK_COLOUR, 64, quick),
            ],
            "paper": [*_grids("mnist", MNIST, 256, paper), *_grids("cifar10", CIFAR10, 256, paper)],
        },
        seeds={"smoke": 2, "quick": 3, "paper": 3},
        load=load,
        measure=measure,
        claims=tuple(
            Claim(
                f"rotated_training_lowers_v_{architecture}",
                f"Training on rotated images lowers V ({architecture}).",
                SOURCE,
                "V_mean",
                better={"variant": "rotated"},
                worse={"variant": "plain"},
                where={"architecture": architecture},
            )
            for architecture in dict.fromkeys(network.architecture for network in (*MNIST, *CIFAR10))
        ),
        figures=(
            Figure(
                "layer_curves",
                "layers",
                "V by layer",
                ("layers", "V"),
                panels=("dataset", "architecture"),
                colour="variant",
                label="V (map means)",
            ),
            Figure(
                "learning_curves",
                "curves",
                "Accuracy per epoch",
                ("val_accuracy",),
                panels=("dataset", "architecture"),
                colour="variant",
                label="accuracy",
            ),
            Figure(
                "accuracy",
                "intervals",
                "Accuracy on plain and rotated test images",
                ("accuracy", "accuracy_rotated"),
                panels=("dataset", "architecture"),
                colour="variant",
            ),
        ),
    )


def _short(network: Network) -> Network:
    return Network(
        network.architecture, network.pool, network.head, network.learning_rate, (1, 1), {"width": 4, "hidden": 16}
    )
