"""Rotation variance of units against double loops over units, angles and images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.geometry import disc_mask, turns
from poolbench.measures.rotation import (
    QuarterTurns,
    activation_variance,
    layer_means,
    recorded_layers,
    rise_with_depth,
    sweep,
)

Images = Callable[..., Tensor]
Outputs = Callable[[nn.Module, Tensor], dict[str, Tensor]]


ANGLES = [0.0, 50.0, 90.0, 200.0]


REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.flatten(2).mean(2) if maps.dim() > 2 else maps,
    "max": lambda maps: maps.flatten(2).amax(2) if maps.dim() > 2 else maps,
    "none": lambda maps: maps.flatten(1),
}


def deviations(values: list[list[float]], chosen: list[int]) -> tuple[float, float]:
    """TV and SV of activations [angle][image] by definition."""
    tv = statistics.fmean(statistics.stdev([row[i] for row in values]) for i in chosen)
    sv = statistics.fmean(statistics.stdev([row[i] for i in chosen]) for row in values)
    return tv, sv


@pytest.mark.parametrize("chunk", [None, 1, 2, 100])
def test_variances_against_double_loops(
    chunk: int | None, small_network: nn.Module, images: Images, outputs: Outputs
) -> None:
    model = small_network
    x, labels = images(7, 12), torch.tensor([0, 2, 0, 2, 2, 0, 5])
    members = {0: [0, 2, 5], 2: [1, 3, 4]}  # class 5 has one image: no spread, no V
    units = activation_variance(model, x, ANGLES, labels, chunk=chunk, per_class=True)
    rotated = [outputs(model, turns(x, [angle])[0] * disc_mask((12, 12))) for angle in ANGLES]
    checked = 0
    for aggregation, reduce in REDUCE.items():
        activations = {layer: torch.stack([reduce(output[layer]) for output in rotated]) for layer in rotated[0]}
        rows = units[units["aggregation"] == aggregation]
        assert {layer: own.shape[2] for layer, own in activations.items()} == rows.groupby("layer").size().to_dict()
        # Every unit of the reduced maps, but only every tenth position.
        for row in rows.iloc[:: 10 if aggregation == "none" else 1].to_dict("records"):
            values = activations[row["layer"]][:, :, row["unit"]].tolist()
            tv, sv = deviations(values, list(range(7)))
            assert row["TV"] == pytest.approx(tv, rel=1e-9, abs=1e-15)
            assert row["SV"] == pytest.approx(sv, rel=1e-9, abs=1e-15)
            if row["dead"]:
                assert tv == sv == 0
                assert np.isnan(row["V"])
                continue
            assert row["V"] == pytest.approx(tv / sv, rel=1e-9)
            each = [statistics.stdev([turn[i] for turn in values]) for i in range(7)]
            assert row["TV_se"] == pytest.approx(statistics.stdev(each) / 7**0.5, rel=1e-9)
            finite = []
            for name, chosen in members.items():
                own_tv, own_sv = deviations(values, chosen)
                if own_sv > 0:
                    finite.append(own_tv / own_sv)
                    assert row[f"V of {name}"] == pytest.approx(finite[-1], rel=1e-9)
            if finite:
                assert row["V_stratified"] == pytest.approx(statistics.fmean(finite), rel=1e-9)
            assert np.isnan(row["V of 5"])
            checked += 1
    assert checked > 150


def test_images_are_masked_at_every_angle() -> None:
    x = torch.ones(2, 1, 9, 9, dtype=torch.float64) * torch.tensor([1.0, 2.0])[:, None, None, None]
    pointwise = nn.Sequential(nn.Conv2d(1, 1, 1)).double()
    masked = activation_variance(pointwise, x, [0.0, 90.0, 45.0], None, ("mean",), fill="reflect")
    # A uniform disc is the same at every angle, as its corners are masked.
    assert masked["TV"].iloc[0] == pytest.approx(0, abs=1e-12)
    assert activation_variance(pointwise, x, [0.0, 45.0], None, ("mean",), mask=None)["TV"].iloc[0] > 0.01


def test_a_constant_unit_is_dead_and_exactly_zero(images: Images) -> None:
    convolution = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[1] = 1.0
        convolution.bias.copy_(torch.tensor([0.1, 0.0]))  # type: ignore[union-attr]
    units = activation_variance(nn.Sequential(convolution).double(), images(5), [0.0, 90.0], None, ("mean", "max"))
    dead = units[units["unit"] == 0]
    assert (dead["TV"] == 0).all()
    assert (dead["SV"] == 0).all()
    assert dead["dead"].all()
    assert dead["V"].isna().all()
    assert layer_means(units)["dead"].tolist() == [0.5, 0.5]
    # Quarter turns only permute pixels: the mean of a map is invariant up to the order of summation.
    alive = units[units["unit"] == 1]
    assert alive["V"].max() < 1e-12


def test_an_average_over_quarter_turns_is_exactly_invariant_to_them(images: Images) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(300, 4))
    model = QuarterTurns(inner)
    assert recorded_layers(model) == {"": "logits"}
    found = sweep(model, images(6, 12).float(), [0.0, 90.0, 180.0, 270.0])
    assert (found.units["TV"] == 0).all()
    assert (found.units["V"] == 0).all()
    assert (found.decisions == found.decisions[0]).all()
    assert activation_variance(model, images(6, 12).float(), [0.0, 45.0])["V"].min() > 1e-3
    plain = activation_variance(inner, images(6, 12).float(), [0.0, 90.0, 180.0, 270.0])
    assert plain[plain["layer"] == "3"]["V"].min() > 1e-3


def test_inversely_rotated_maps_of_a_pointwise_network_are_constant(images: Images) -> None:
    torch.manual_seed(0)
    pointwise = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU()).double()
    quarters = [0.0, 90.0, 180.0, 270.0]
    inverse = activation_variance(pointwise, images(5), quarters, same_equivariant=True)
    assert inverse["TV"].max() == 0
    direct = activation_variance(pointwise, images(5), quarters, aggregation=("none",))
    assert direct["V"].max() > 0.5


def test_bad_arguments_are_refused_in_one_line(small_network: nn.Module, images: Images) -> None:
    model, x = small_network, images(3, 12)
    for arguments, words in (
        ((x[:1], ANGLES), "two images"),
        ((x, [0.0]), "two angles"),
        ((x, ANGLES, torch.zeros(2)), "one per image"),
        ((x, ANGLES, None, ("sum",)), "mean, max, none, got sum"),
        ((x, ANGLES, None, ("mean",), "square"), "'disc' or None"),
        ((x, ANGLES, None, ("mean",), "disc", "wrap"), "zeros, reflect, got 'wrap'"),
    ):
        with pytest.raises(UsageError, match=words):
            activation_variance(model, *arguments)  # type: ignore[arg-type]


def test_the_decisions_of_a_sweep_are_those_of_the_network(small_network: nn.Module, images: Images) -> None:
    model, x = small_network, images(5, 12)
    labels = torch.tensor([2, 0, 1, 0, 2])
    found = sweep(model, x, ANGLES, labels, ("mean",), chunk=2)
    for angle, own in zip(ANGLES, found.decisions, strict=True):
        assert torch.equal(own, model(turns(x, [angle])[0] * disc_mask((12, 12))).argmax(1))


def test_rise_with_depth_compares_the_halves_of_the_layers() -> None:
    rows = [(depth, "mean", v) for depth, v in enumerate((0.1, 0.3, 9.0, 0.5, 0.9))] + [(0, "max", 5.0)]
    layers = pd.DataFrame(rows[::-1], columns=["depth", "aggregation", "V"])
    assert rise_with_depth(layers) == pytest.approx((0.5 + 0.9) / 2 - (0.1 + 0.3) / 2)
    assert math.isnan(rise_with_depth(layers, "max"))
