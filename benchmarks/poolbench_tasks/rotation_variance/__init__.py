"""How invariant layers become to rotation, with and without rotated training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
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
    from torch import Tensor, nn

    from poolbench.data import Dataset

OPINIONS = 100  # images for second opinions and controls, unless the cell says otherwise
LOOKALIKES = ("mnist", "mnist_sample")  # where a 6 turned by 180 degrees is a 9
SOURCE = "Quiroga et al. 2019, 'Measuring (in)variances in convolutional networks'"

draw = deferred("poolbench_tasks.rotation_variance.figures")
BY_LAYER = f"Mean over seeds of each layer, {captions.DEPTH} Grey: the same networks before training."
FIGURES = (
    Figure("accuracy", "Accuracy, trained on x tested on", captions.BARS, draw.accuracy),
    Figure(
        "angles",
        "Accuracy against the angle",
        "Mean over seeds with 95 % t bands. Dashed: the same network averaged over four quarter turns.",
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
        "Linear CKA of a layer's outputs for rotated and upright images, mean over seeds; colour: depth.",
        draw.cka,
        draw.cka_of_cell,
    ),
    Figure(
        "learning_curves",
        "Accuracy per epoch",
        captions.LEARNING_CURVES,
        draw.learning_curves,
        draw.learning_curves_of_cell,
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
    Network("all_convolutional", "decimate", "avg", 2e-2, (4, 6), {"width": 8}, "one_cycle"),
    Network("vgg_like", "max", "flatten", 1e-2, (3, 6), {"width": 8, "hidden": 32}, "one_cycle"),
    Network("resnet18", "decimate", "avg", 1e-2, (2, 4), {"width": 4}, "one_cycle"),
)
QUICK_COLOUR = (Network("vgg_like", "max", "flatten", 1e-2, (3, 5), {"width": 8, "hidden": 32}, "one_cycle"),)


def load(cell: Cell, location: DataLocation, device: str) -> Dataset:
    from poolbench.data import load_dataset

    return load_dataset(cell.dataset, location, device)


def measure(cell: Cell, model: nn.Module, data: Dataset) -> Measurement:
    """Accuracy against the angle, V of every unit, layer and class, as corrected and as in 2019, and the controls.

    Controls: the same network with its first weights, and the network averaged over four quarter turns.
    Measure options: ``angles`` (a multiple of 4) and ``images`` of the variances; ``opinions``, the
    number of images for local equivariance error, CKA and maps turned back; ``protocol_2019``, False
    leaves the old protocol out.
    """
    import pandas as pd
    import torch

    from poolbench.data.augment import rotate
    from poolbench.engine import build_model, evaluate
    from poolbench.engine.fit import to_pixels
    from poolbench.measures import rotation

    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "test angles"))
    device = data.test.images.device

    def turned(pixels: torch.Tensor) -> torch.Tensor:
        return rotate(pixels, (torch.rand(len(pixels), generator=generator) * 360 - 180).to(device))

    loss, accuracy = evaluate(model, data.test, masked=True)
    _, rotated = evaluate(model, data.test, masked=True, transform=turned)
    metrics = {"accuracy": accuracy, "loss": loss, "accuracy_rotated": rotated}

    count = int(cell.measure["angles"])
    angles = [360 * step / count for step in range(count)]
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))
    subset = data.test.take(order[: int(cell.measure["images"])].to(device))
    few = data.test.take(order[: int(cell.measure.get("opinions", OPINIONS))].to(device))
    pixels, few_pixels = to_pixels(subset.images), to_pixels(few.images)

    untrained = build_model(cell, data, str(device))
    networks = {"trained": model, "random": untrained}
    trained = rotation.sweep(model, pixels, angles, subset.labels, per_class=True)
    random = rotation.activation_variance(untrained, pixels, angles, subset.labels)
    back = {name: _turned_back(network, few_pixels, angles) for name, network in networks.items()}
    metrics |= _global_v(trained.units, "")
    metrics |= _global_v(random, "_random")
    old = [_old_protocol(cell, model, pixels, angles, subset.labels)] if cell.measure.get("protocol_2019", True) else []
    for units in old:
        metrics |= _global_v(units, "_2019")
    metrics["V_back"] = _finite_mean(back["trained"]["V"])
    metrics["dead"] = float(trained.units[trained.units["aggregation"] != "none"]["dead"].mean())

    # An image at an angle has its quarter turns among the angles, so their mean costs no further pass.
    quarters = [trained.logits.roll(-turn * count // 4, dims=0) for turn in range(4)]
    pooled = rotation.Sweep(trained.units, torch.stack(quarters).double().mean(dim=0))
    metrics["V_c4"] = float((pooled.logits.std(dim=0).mean(dim=0) / pooled.logits.std(dim=1).mean(dim=0)).mean())
    exact = rotation.activation_variance(
        rotation.QuarterTurns(model), few_pixels[:20], [0.0, 90.0, 180.0, 270.0], None, ("mean",)
    )
    metrics["V_c4_quarters"] = _finite_mean(exact["V"])

    pairs = [data.classes.index(name) for name in ("6", "9")] if cell.dataset in LOOKALIKES else []
    by_angle = pd.concat(
        rotation.decisions_by_angle(decisions, subset.labels, angles, data.classes, merged).assign(
            network=network, merged=bool(merged)
        )
        for network, decisions in (("trained", trained.decisions), ("c4", pooled.decisions))
        for merged in ([[], pairs] if pairs else [[]])
    )
    for network, suffix in (("trained", ""), ("c4", "_c4")):
        whole = by_angle[(by_angle["network"] == network) & (by_angle["class"] == "all") & ~by_angle["merged"]]
        metrics[f"accuracy_orbit{suffix}"] = float(whole["accuracy"].mean())
        metrics[f"accuracy_worst{suffix}"] = float(whole["worst"].min())
        metrics[f"consistency{suffix}"] = float(whole["consistency"].iloc[1:].mean())

    layers = rotation.layer_means(trained.units)
    named = {f"V of {index}": name for index, name in enumerate(data.classes)}
    keys = ["depth", "layer", "kind", "aggregation"]
    classes = layers[keys + [name for name in named if name in layers]].melt(keys, var_name="class", value_name="V")
    tables = {
        # Positions are too many to keep one by one.
        "units": trained.units[trained.units["aggregation"] != "none"].drop(columns=list(named), errors="ignore"),
        "layers": pd.concat(
            [
                layers.drop(columns=list(named), errors="ignore").assign(network="trained"),
                *(own.assign(network=name) for name, own in back.items()),
                rotation.layer_means(random).assign(network="random"),
                *(rotation.layer_means(units).assign(network="trained, protocol of 2019") for units in old),
            ]
        ),
        "classes": classes.assign(**{"class": classes["class"].map(named)}),
        "angles": by_angle,
        "lee": pd.concat(
            rotation.local_equivariance_error(network, few_pixels).assign(network=name)
            for name, network in networks.items()
        ),
        "cka": pd.concat(
            rotation.rotated_cka(network, few_pixels, angles).assign(network=name) for name, network in networks.items()
        ),
    }
    return Measurement(metrics, {name: table.reset_index(drop=True) for name, table in tables.items()})


def _old_protocol(
    cell: Cell, model: nn.Module, pixels: Tensor, angles: Sequence[float], labels: Tensor
) -> pd.DataFrame:
    import torch

    from poolbench.measures.rotation import quiroga2019_variance

    normalize = model.get_submodule("normalize")
    mean, std = normalize.get_buffer("mean"), normalize.get_buffer("std")
    jitter = torch.Generator().manual_seed(derive_seed(cell.seed, "jittered angles"))
    return quiroga2019_variance(model, pixels, angles, labels, mean, std, jitter)


def _turned_back(network: nn.Module, pixels: Tensor, angles: Sequence[float]) -> pd.DataFrame:
    """V of layers whose maps are turned back first: the mean TV over the mean SV of their positions.

    Not the mean of V: near a border padding moves positions that the images hardly reach, and a few of
    those ratios would drown all others, as they do in stratified V, which is left out.
    """
    from poolbench.measures import rotation

    units = rotation.activation_variance(network, pixels, angles, None, ("none",), same_equivariant=True)
    layers = rotation.layer_means(units).assign(aggregation="none, turned back")
    return layers.assign(V=layers["TV"] / layers["SV"]).drop(columns="V_stratified")


def _global_v(units: pd.DataFrame, suffix: str) -> dict[str, float]:
    """The study's global V: the mean over the network's units, dead and infinite ones left out."""
    found = {}
    for name, rows in units.groupby("aggregation"):
        found[f"V_{name}{suffix}"] = _finite_mean(rows["V"])
        found[f"V_{name}_stratified{suffix}"] = _finite_mean(rows["V_stratified"])
    return found


def _finite_mean(values: pd.Series[float]) -> float:
    return float(values.replace([inf, -inf], nan).mean())


def _grids(
    dataset: str, networks: Sequence[Network], batch_size: int, measure: dict[str, Scalar], frozen: bool = False
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
                augment="rotation" if variant == "rotated" else "none",
            ),
            variant=f"{variant}_frozen" if frozen else variant,
            model=network.model,
            data={"mask": "disc", "batch_norm": "frozen"} if frozen else {"mask": "disc"},
            measure=measure,
        )
        for network in networks
        for variant, epochs in zip(("plain", "rotated"), network.epochs, strict=True)
    ]


@benchmarks.register("rotation_variance")
def rotation_variance() -> Benchmark:
    """Which layers stop caring about rotation, and what training on rotated images changes?"""
    quick: dict[str, Scalar] = {"angles": 8, "images": 200, "opinions": 10, "protocol_2019": False}
    paper: dict[str, Scalar] = {"angles": 16, "images": 10000}
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
            Metric("accuracy", "accuracy, plain", higher_is_better=True, tolerance=0.02),
            Metric("accuracy_rotated", "accuracy, rotated", higher_is_better=True, tolerance=0.02),
            Metric("accuracy_worst", "worst-case accuracy over the angles", higher_is_better=True, tolerance=0.03),
            Metric("V_mean", "V of map means", higher_is_better=False, tolerance=0.05),
            Metric("V_mean_stratified", "V of map means, stratified", higher_is_better=False, tolerance=0.05),
            Metric("V_max", "V of map maxima", higher_is_better=False, tolerance=0.05),
            Metric("V_none", "V of positions", higher_is_better=False, tolerance=0.05),
            *(
                Metric(name, title, higher_is_better=better, tolerance=0.05, headline=False)
                for name, title, better in (
                    ("V_max_stratified", "V of map maxima, stratified", False),
                    ("V_none_stratified", "V of positions, stratified", False),
                    ("V_back", "V of layers, maps turned back", False),
                    ("V_mean_random", "V of map means, random weights", None),
                    ("V_mean_stratified_random", "V of map means, stratified, random weights", None),
                    ("V_max_random", "V of map maxima, random weights", None),
                    ("V_none_random", "V of positions, random weights", None),
                    ("V_mean_2019", "V of map means, protocol of 2019", None),
                    ("V_mean_stratified_2019", "V of map means, stratified, protocol of 2019", None),
                    ("V_max_2019", "V of map maxima, protocol of 2019", None),
                    ("V_max_stratified_2019", "V of map maxima, stratified, protocol of 2019", None),
                    ("V_c4", "V of the logits averaged over quarter turns", None),
                    ("V_c4_quarters", "the same, of quarter turns alone (0 by construction)", None),
                    ("accuracy_orbit", "accuracy, mean over the angles", True),
                    ("accuracy_orbit_c4", "the same, averaged over quarter turns", True),
                    ("accuracy_worst_c4", "worst-case accuracy, averaged over quarter turns", True),
                    ("consistency", "consistency with 0 degrees", True),
                    ("consistency_c4", "the same, averaged over quarter turns", True),
                )
            ),
            Metric("dead", "dead units", unit="share", tolerance=0.05, headline=False),
            Metric("loss", "loss", higher_is_better=False, tolerance=0.1, headline=False),
        ),
        presets={
            "smoke": _grids("mnist_sample", [_short(QUICK_GREY[0])], 128, {"angles": 4, "images": 50, "opinions": 20}),
            "quick": [
                *_grids("mnist_sample", QUICK_GREY, 64, quick),
                # The comparison of pools, on the network whose published pool is max.
                *(
                    grid.select(pools=("avg", "max_blur3"))
                    for grid in _grids("mnist_sample", QUICK_GREY[2:3], 64, quick)
                ),
                *_grids("colour_shapes", QUICK_COLOUR, 64, quick),
            ],
            "paper": [
                *_grids("mnist", MNIST, 256, paper),
                *_grids("cifar10", CIFAR10, 256, paper),
                # simple_conv has no batch norm to freeze.
                *_grids("mnist", MNIST[1:], 256, paper, frozen=True),
            ],
        },
        seeds={"smoke": 2, "quick": 3, "paper": 3},
        load=load,
        measure=measure,
        version=2,
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
        figures=FIGURES,
    )


def _short(network: Network) -> Network:
    return Network(
        network.architecture, network.pool, network.head, network.learning_rate, (1, 1), {"width": 4, "hidden": 16}
    )
