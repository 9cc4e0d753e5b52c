"""Rotations, and the variance of activations against double loops over units, angles and images."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.data.augment import disc_mask, rotate, rotate_all
from poolbench.measures import rotation
from poolbench.measures.rotation import activation_variance, layer_means, record, recorded_layers
from poolbench.pooling import create_head, create_pool, list_heads, list_pools


def images(count: int, size: int = 9) -> Tensor:
    x = torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x * disc_mask((size, size))


@pytest.mark.parametrize("size", [8, 9])
def test_quarter_turns_are_exact_and_counter_clockwise(size: int) -> None:
    x = images(3, size)
    for quarter in range(-4, 5):
        expected = torch.from_numpy(np.rot90(x.numpy(), quarter, axes=(-2, -1)).copy())
        assert torch.equal(rotate_all(x, 90.0 * quarter), expected)
        interpolated = rotate(x, torch.full((3,), 90.0 * quarter))
        torch.testing.assert_close(interpolated, expected, rtol=0, atol=1e-9)


def test_interpolation_against_a_double_loop() -> None:
    x = images(1, 7)
    angle = 33.0
    found = rotate_all(x, angle)[0, 0]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for i in range(7):
        for j in range(7):
            # Where the output pixel comes from: turned back, clockwise, about the centre (rows run down).
            dx, dy = j - 3, i - 3
            sx, sy = cos * dx - sin * dy + 3, sin * dx + cos * dy + 3
            x0, y0 = int(np.floor(sx)), int(np.floor(sy))
            value = 0.0
            for a in (0, 1):
                for b in (0, 1):
                    if 0 <= y0 + a < 7 and 0 <= x0 + b < 7:
                        weight = (1 - abs(sy - y0 - a)) * (1 - abs(sx - x0 - b))
                        value += weight * float(x[0, 0, y0 + a, x0 + b])
            assert float(found[i, j]) == pytest.approx(value, abs=1e-9)


def test_each_image_turns_by_its_own_angle() -> None:
    x = images(3)
    angles = torch.tensor([0.0, 45.0, -120.0])
    found = rotate(x, angles)
    for i, angle in enumerate(angles.tolist()):
        torch.testing.assert_close(found[i : i + 1], rotate(x[i : i + 1], torch.tensor([angle])))


def test_a_map_that_is_not_square_keeps_its_shape_of_circles() -> None:
    x = torch.zeros(1, 1, 21, 31, dtype=torch.float64)
    x[0, 0, 10, 25] = 1  # 10 px right of the centre
    turned = rotate_all(x, 90.0)
    assert int(turned[0, 0].argmax()) == 0 * 31 + 15  # 10 px above it


def test_the_disc_is_the_inscribed_circle() -> None:
    mask = disc_mask((28, 28))
    assert mask.float().mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert torch.equal(mask, torch.rot90(mask))
    assert not mask[0, 0]
    assert mask[0, 13]


def test_variances_against_double_loops() -> None:
    torch.manual_seed(0)
    model = create_model("simple_conv", (1, 12, 12), 4, "max", "flatten", width=2, hidden=3).double()
    x, labels = images(6, 12), torch.tensor([0, 0, 0, 1, 1, 1])
    angles = [0.0, 50.0, 90.0, 200.0]
    units = activation_variance(model, x, angles, labels)
    for aggregation in ("mean", "max"):
        turns = [record(model, rotate_all(x, angle), aggregation) for angle in angles]
        for row in units[units["aggregation"] == aggregation].itertuples():
            values = [[float(turn[row.layer][i, row.unit]) for i in range(6)] for turn in turns]

            def variances(chosen: list[int], values: list[list[float]] = values) -> tuple[float, float]:
                tv = statistics.fmean(statistics.stdev([row[i] for row in values]) for i in chosen)
                sv = statistics.fmean(statistics.stdev([row[i] for i in chosen]) for row in values)
                return tv, sv

            tv, sv = variances(list(range(6)))
            assert pytest.approx(tv, rel=1e-9, abs=1e-15) == row.TV
            assert pytest.approx(sv, rel=1e-9, abs=1e-15) == row.SV
            if row.dead:
                assert tv == sv == 0
                assert np.isnan(row.V)
                continue
            assert pytest.approx(tv / sv, rel=1e-9) == row.V
            classes = [variances([0, 1, 2]), variances([3, 4, 5])]
            finite = [t / s for t, s in classes if s > 0]
            if finite:
                assert row.V_stratified == pytest.approx(statistics.fmean(finite), rel=1e-9)


def test_a_constant_unit_is_dead_and_exactly_zero() -> None:
    convolution = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[1] = 1.0
        convolution.bias.copy_(torch.tensor([0.1, 0.0]))  # type: ignore[union-attr]
    units = activation_variance(nn.Sequential(convolution).double(), images(5), [0.0, 90.0])
    dead = units[units["unit"] == 0]
    assert (dead["TV"] == 0).all()
    assert (dead["SV"] == 0).all()
    assert dead["dead"].all()
    assert dead["V"].isna().all()
    assert layer_means(units)["dead"].tolist() == [0.5, 0.5]
    # Quarter turns move no pixel value: the mean of a map is invariant, V = 0 up to the order of summation.
    alive = units[units["unit"] == 1]
    assert alive["V"].max() < 1e-12


def test_an_invariant_network_has_no_variance() -> None:
    class Quarters(nn.Module):
        """Four quarter-turned copies averaged."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner
            self.out = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            total = sum(self.inner(torch.rot90(x, k, dims=(-2, -1))) for k in range(4))
            assert isinstance(total, Tensor)
            result: Tensor = self.out(total)
            return result

    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(300, 4))
    model = Quarters(inner).double()
    units = activation_variance(model, images(6, 12), [0.0, 90.0, 180.0, 270.0])
    assert units[units["layer"] == "out"]["V"].max() < 1e-9
    units = activation_variance(model, images(6, 12), [0.0, 45.0])
    assert units[units["layer"] == "out"]["V"].min() > 1e-3


def test_an_in_place_activation_does_not_change_what_was_recorded() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3)
    x = images(4)
    plain = nn.Sequential(convolution, nn.Flatten(), nn.Linear(3 * 49, 2), nn.ReLU()).double()
    in_place = nn.Sequential(*list(plain)[:-1], nn.ReLU(inplace=True))
    for aggregation in ("mean", "max"):
        first, second = record(plain, x, aggregation), record(in_place, x, aggregation)
        assert list(first) == ["0", "2", "3"]
        for layer in first:
            assert torch.equal(first[layer], second[layer])


@pytest.mark.parametrize("pool", ["strided_conv", "lip", "lps", "space_to_depth"])
def test_the_same_layers_are_recorded_whatever_the_pooling(pool: str) -> None:
    plain = create_model("vgg_like", (1, 32, 32), 4, "max", "avg", width=2, hidden=3)
    for head in ("avg", "simpool", "attention"):
        model = create_model("vgg_like", (1, 32, 32), 4, pool, head, width=2, hidden=3)
        assert recorded_layers(model) == recorded_layers(plain)
        units = activation_variance(model, images(4, 32).float(), [0.0, 90.0])
        assert set(units["layer"]) == set(recorded_layers(plain))


def test_every_pool_and_head_is_told_apart_from_layers() -> None:
    for name in list_pools():
        assert type(create_pool(name, 4)).__module__.startswith("poolbench.pooling.")
    for name in list_heads():
        assert type(create_head(name, 4, size=(4, 4))).__module__.startswith("poolbench.pooling.")


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = create_model("simple_conv", (1, 12, 12), 4, "max", "flatten", width=2, hidden=3).double()
    whole = record(model, images(7, 12), "mean")
    monkeypatch.setattr(rotation, "BATCH", 3)
    for layer, values in record(model, images(7, 12), "mean").items():
        torch.testing.assert_close(values, whole[layer])


def test_layers_come_in_order_of_execution_and_leave_no_hook() -> None:
    model = create_model("resnet18", (1, 16, 16), 4, "decimate", width=2)
    layers = list(record(model, images(2, 16).float(), "mean"))
    assert layers[:3] == ["conv", "norm", "relu"]
    assert layers[-1] == "classifier.linear"
    assert not any(module._forward_hooks for module in model.modules())
