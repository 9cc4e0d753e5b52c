"""Accuracy against the angle, V of every unit, layer and class, and the controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, nan

import pandas as pd
import torch
from torch import Tensor, nn

from poolbench.core import Cell, Measurement, derive_seed
from poolbench.data import Dataset, Split, to_pixels
from poolbench.engine import build_model, evaluate
from poolbench.geometry import rotate
from poolbench.measures import rotation
from poolbench_tasks.rotation_variance import RotationOptions

LOOKALIKES = ("mnist", "mnist_sample")  # data sets in which a 6 rotated by 180 degrees is a 9
QUARTERS = [0.0, 90.0, 180.0, 270.0]


def measure(cell: Cell, options: RotationOptions, model: nn.Module, data: Dataset) -> Measurement:
    """Return accuracies, V and decisions of a trained network, and the same for its controls.

    Controls: the network with its initial weights, and the network averaged over four quarter turns.
    """
    angles = [360 * step / options.angles for step in range(options.angles)]
    subset = data.test.sample(options.images)
    pixels = to_pixels(subset.images)
    few_pixels = pixels[: options.opinions]
    cka_pixels = to_pixels(data.test.sample(options.cka_images).images)

    networks = {"trained": model, "random": build_model(cell, data, str(pixels.device))}
    trained = rotation.sweep(model, pixels, angles, subset.labels, per_class=True)
    units = {"random": rotation.activation_variance(networks["random"], pixels, angles, subset.labels)}
    if options.protocol_2019:
        units["2019"] = _protocol_2019(cell, model, pixels, angles, subset.labels)
    rotated_back = {name: _rotated_back(network, few_pixels, angles) for name, network in networks.items()}
    quarter_turns = _averaged_over_quarter_turns(trained)
    by_angle = _decisions(cell, data, subset, angles, {"trained": trained, "c4": quarter_turns})

    metrics = _accuracies(cell, model, data) | _global_v(trained.units, "")
    for name, rows in units.items():
        metrics |= _global_v(rows, f"_{name}")
    metrics |= _control_metrics(model, few_pixels, trained, quarter_turns) | _decision_metrics(by_angle)
    metrics["V_back"] = _finite_mean(rotated_back["trained"]["V"])
    metrics["V_mean_rise"] = rotation.rise_with_depth(rotation.layer_means(trained.units))
    metrics["V_mean_rise_random"] = rotation.rise_with_depth(rotation.layer_means(units["random"]))
    tables = {
        **_unit_tables(data, trained.units, units, rotated_back),
        "angles": by_angle,
        "lee": _of_networks(networks, lambda network: rotation.local_equivariance_error(network, few_pixels)),
        "cka": _of_networks(networks, lambda network: rotation.rotated_cka(network, cka_pixels, angles)),
    }
    return Measurement(metrics, {name: table.reset_index(drop=True) for name, table in tables.items()})


def _of_networks(networks: Mapping[str, nn.Module], measured: Callable[[nn.Module], pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(measured(network).assign(network=name) for name, network in networks.items())


def _accuracies(cell: Cell, model: nn.Module, data: Dataset) -> dict[str, float]:
    """Return accuracy and loss on upright test images, and the accuracy at a random angle per image."""
    generator = torch.Generator().manual_seed(derive_seed(cell.seed, "test angles"))

    def rotated(pixels: Tensor) -> Tensor:
        degrees = torch.rand(len(pixels), generator=generator) * 360 - 180
        return rotate(pixels, degrees.to(pixels.device))

    loss, accuracy = evaluate(model, data.test, cell.train.mask)
    _, accuracy_rotated = evaluate(model, data.test, cell.train.mask, transform=rotated)
    return {"accuracy": accuracy, "loss": loss, "accuracy_rotated": accuracy_rotated}


def _averaged_over_quarter_turns(trained: rotation.Sweep) -> rotation.Sweep:
    """Return the network averaged over quarter turns: they are among the angles, so it takes no further pass."""
    count = len(trained.logits)
    turns = [trained.logits.roll(-turn * count // 4, dims=0) for turn in range(4)]
    return rotation.Sweep(trained.units, torch.stack(turns).double().mean(dim=0))


def _control_metrics(
    model: nn.Module, pixels: Tensor, trained: rotation.Sweep, averaged: rotation.Sweep
) -> dict[str, float]:
    over_angles, over_images = averaged.logits.std(dim=0).mean(dim=0), averaged.logits.std(dim=1).mean(dim=0)
    exact = rotation.activation_variance(rotation.QuarterTurns(model), pixels[:20], QUARTERS, None, ("mean",))
    maps = trained.units[trained.units["aggregation"] != "none"]
    return {
        "V_c4": float((over_angles / over_images).mean()),
        "V_c4_quarters": _finite_mean(exact["V"]),
        "dead": float(maps["dead"].mean()),
    }


def _decisions(
    cell: Cell, data: Dataset, subset: Split, angles: Sequence[float], networks: Mapping[str, rotation.Sweep]
) -> pd.DataFrame:
    """Return the decisions by angle and class, for digits also with 6 and 9 as one class."""
    merges: list[list[int]] = [[]]
    if cell.dataset.name in LOOKALIKES:
        merges.append([data.classes.index(name) for name in ("6", "9")])
    return pd.concat(
        rotation.decisions_by_angle(found.decisions, subset.labels, angles, data.classes, merged).assign(
            network=network, merged=bool(merged)
        )
        for network, found in networks.items()
        for merged in merges
    )


def _decision_metrics(by_angle: pd.DataFrame) -> dict[str, float]:
    metrics = {}
    for network, suffix in (("trained", ""), ("c4", "_c4")):
        whole = by_angle[(by_angle["network"] == network) & (by_angle["class"] == "all") & ~by_angle["merged"]]
        metrics[f"accuracy_orbit{suffix}"] = float(whole["accuracy"].mean())
        metrics[f"accuracy_worst{suffix}"] = float(whole["worst"].min())
        metrics[f"consistency{suffix}"] = float(whole["consistency"].iloc[1:].mean())
    return metrics


def _unit_tables(
    data: Dataset,
    trained: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    rotated_back: Mapping[str, pd.DataFrame],
) -> dict[str, pd.DataFrame]:
    """Return the tables of units, of layers (trained, rotated back, controls) and of layers by class."""
    named = {f"V of {index}": name for index, name in enumerate(data.classes)}
    keys = ["depth", "layer", "kind", "aggregation"]
    layers = rotation.layer_means(trained)
    classes = layers[keys + [name for name in named if name in layers]].melt(keys, var_name="class", value_name="V")
    titles = {"random": "random", "2019": "trained, protocol of 2019"}
    return {
        # Positions are too many to store one by one.
        "units": trained[trained["aggregation"] != "none"].drop(columns=[*named, "V_layer_se"], errors="ignore"),
        "layers": pd.concat(
            [
                layers.drop(columns=list(named), errors="ignore").assign(network="trained"),
                *(table.assign(network=name) for name, table in rotated_back.items()),
                *(rotation.layer_means(units).assign(network=titles[name]) for name, units in others.items()),
            ]
        ),
        "classes": classes.assign(**{"class": classes["class"].map(named)}),
    }


def _protocol_2019(
    cell: Cell, model: nn.Module, pixels: Tensor, angles: Sequence[float], labels: Tensor
) -> pd.DataFrame:
    normalize = model.get_submodule("normalize")
    mean, std = normalize.get_buffer("mean"), normalize.get_buffer("std")
    jitter = torch.Generator().manual_seed(derive_seed(cell.seed, "jittered angles"))
    return rotation.quiroga2019_variance(model, pixels, angles, labels, mean, std, jitter)


def _rotated_back(network: nn.Module, pixels: Tensor, angles: Sequence[float]) -> pd.DataFrame:
    """Return V of layers whose maps are rotated back first: the mean TV over the mean SV of their positions.

    Not the mean of V: near a border padding moves positions that the images hardly reach, and a few of those ratios
    would dominate. The same happens to stratified V, which is left out.
    """
    units = rotation.activation_variance(network, pixels, angles, None, ("none",), same_equivariant=True)
    layers = rotation.layer_means(units).assign(aggregation="none, turned back")
    return layers.assign(V=layers["TV"] / layers["SV"]).drop(columns="V_stratified")


def _global_v(units: pd.DataFrame, suffix: str) -> dict[str, float]:
    """Return the study's global V: the mean over the network's units with finite V."""
    metrics = {}
    for name, rows in units.groupby("aggregation"):
        metrics[f"V_{name}{suffix}"] = _finite_mean(rows["V"])
        metrics[f"V_{name}_stratified{suffix}"] = _finite_mean(rows["V_stratified"])
    return metrics


def _finite_mean(values: pd.Series[float]) -> float:
    return float(values.replace([inf, -inf], nan).mean())
