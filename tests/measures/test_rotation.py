"""Rotations, and the variance of activations against double loops over units, angles and images."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.core import UsageError
from poolbench.geometry import disc_mask, rotate_all
from poolbench.measures.rotation import (
    QuarterTurns,
    activation_variance,
    decisions_by_angle,
    layer_means,
    local_equivariance_error,
    quiroga2019_variance,
    recorded_layers,
    rotated_cka,
    sweep,
)
from poolbench.measures.rotation import moments as moments_module
from poolbench.measures.rotation.compiled import WIDTH
from poolbench.measures.rotation.layers import listening
from poolbench.measures.rotation.moments import Moments, Workspace
from poolbench.pooling import create_head, create_pool, list_heads, list_pools


@pytest.fixture(params=["numba", "torch"])
def summing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way to add up the differences."""
    if request.param == "numba":
        pytest.importorskip("numba")
    else:
        monkeypatch.setattr(moments_module, "compiled_sums", lambda values: None)


def images(count: int, size: int = 9) -> Tensor:
    x = torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x * disc_mask((size, size))


ANGLES = [0.0, 50.0, 90.0, 200.0]
REDUCE: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda maps: maps.flatten(2).mean(2) if maps.dim() > 2 else maps,
    "max": lambda maps: maps.flatten(2).amax(2) if maps.dim() > 2 else maps,
    "none": lambda maps: maps.flatten(1),
}


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs of all recorded layers, copied."""
    found: dict[str, Tensor] = {}
    with torch.no_grad(), listening(model, lambda layer, output: found.update({layer: output.clone()})):
        model(x)
    return found


def small_network(size: int = 12) -> nn.Module:
    torch.manual_seed(0)
    return create_model("simple_conv", (1, size, size), 4, "max", "flatten", width=2, hidden=3).double().eval()


def deviations(values: list[list[float]], chosen: list[int]) -> tuple[float, float]:
    """TV and SV of activations [angle][image] by definition."""
    tv = statistics.fmean(statistics.stdev([row[i] for row in values]) for i in chosen)
    sv = statistics.fmean(statistics.stdev([row[i] for i in chosen]) for row in values)
    return tv, sv


@pytest.mark.usefixtures("summing")
@pytest.mark.parametrize("chunk", [None, 1, 2, 100])
def test_variances_against_double_loops(chunk: int | None) -> None:
    model = small_network()
    x, labels = images(7, 12), torch.tensor([0, 2, 0, 2, 2, 0, 5])
    members = {0: [0, 2, 5], 2: [1, 3, 4]}  # class 5 has one image: no spread, no V
    units = activation_variance(model, x, ANGLES, labels, chunk=chunk, per_class=True)
    turned = [outputs(model, rotate_all(x, angle) * disc_mask((12, 12))) for angle in ANGLES]
    checked = 0
    for aggregation, reduce in REDUCE.items():
        activations = {layer: torch.stack([reduce(turn[layer]) for turn in turned]) for layer in turned[0]}
        rows = units[units["aggregation"] == aggregation]
        assert {layer: own.shape[2] for layer, own in activations.items()} == rows.groupby("layer").size().to_dict()
        # Every unit of the reduced maps, every tenth position.
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


@pytest.mark.usefixtures("summing")
def test_single_precision_keeps_six_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    # Runs that end within a class, and blocks that end within a layer.
    monkeypatch.setattr(moments_module, "RUN", 8)
    monkeypatch.setattr(moments_module, "BLOCK", 1)
    x = images(60, 12)
    labels = torch.arange(60) % 3
    # Far from zero, as a bias makes them: squares of the activations themselves would lose every digit.
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(300, 2))
    with torch.no_grad():
        model[0].bias.fill_(100.0)  # type: ignore[union-attr,operator]
    reference = []
    angles = [30.0 * step for step in range(12)]
    for turn in angles:
        pixels = rotate_all(x.float(), turn) * disc_mask((12, 12))
        reference.append(outputs(model, pixels)["0"].double().flatten(1))
    values = torch.stack(reference)
    units = activation_variance(model, x.float(), angles, labels, ("none",))
    own = units[units["layer"] == "0"]
    tv, sv = values.std(0).mean(0), values.std(1).mean(0)
    moving = (tv > 0).numpy()
    # 1e-6 of what single precision leaves of a deviation of .1 around 100.
    np.testing.assert_allclose(own["TV"], tv, rtol=2e-5)
    np.testing.assert_allclose(own["SV"], sv, rtol=2e-5)
    assert moving.any()


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_compiled_sums_are_those_of_torch(dtype: torch.dtype, digits: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of units, passes and classes; units that never move, that move with the angle alone, and NaN."""
    pytest.importorskip("numba")
    units = 2 * WIDTH + 5
    values = 100 + torch.randn(5, 9, units, dtype=dtype, generator=torch.Generator().manual_seed(0))
    values[..., 0] = 0.1
    values[..., 1] = torch.linspace(0, 1, 5, dtype=dtype)[:, None]
    values[2, 3, 2] = torch.nan

    def result() -> dict[str, Tensor]:
        moments = Moments(5, Workspace())
        for chosen in (slice(0, 2), slice(2, 5)):
            moments.update(values[:, chosen])
        moments.close_class()
        moments.update(values[:, 5:])
        moments.close_class()
        return moments.result()

    compiled = result()
    monkeypatch.setattr(moments_module, "compiled_sums", lambda values: None)
    for name, expected in result().items():
        # Unit 1 has the same deviation in every image: its standard error is rounding alone.
        kept = [unit for unit in range(units) if (name, unit) != ("TV_se", 1)]
        torch.testing.assert_close(compiled[name][..., kept], expected[..., kept], rtol=digits, atol=0, equal_nan=True)
    assert compiled["TV"][0] == compiled["SV"][0] == 0
    assert compiled["SV"][1] == 0
    assert compiled["V"][2].isnan()


def test_errors_of_v_are_not_too_small() -> None:
    """V_se against the spread of V over bootstrap samples of the images."""
    model = small_network()
    x = images(80, 12) * torch.rand(80, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    units = activation_variance(model, x, ANGLES, None, ("mean",))
    turned = [outputs(model, rotate_all(x, angle) * disc_mask((12, 12))) for angle in ANGLES]
    rows = units[(units["layer"] == "conv2")]
    values = torch.stack([REDUCE["mean"](turn["conv2"]) for turn in turned])
    generator = torch.Generator().manual_seed(2)
    found = []
    for _ in range(300):
        chosen = values[:, torch.randint(80, (80,), generator=generator)]
        found.append(chosen.std(0).mean(0) / chosen.std(1).mean(0))
    spread = torch.stack(found).std(0)
    ratio = rows["V_se"].to_numpy() / spread.numpy()
    # Too large rather than too small: it takes TV and SV for independent.
    assert ratio.min() > 0.8
    assert ratio.max() < 3


def test_the_mask_lies_on_every_image() -> None:
    x = torch.ones(2, 1, 9, 9, dtype=torch.float64) * torch.tensor([1.0, 2.0])[:, None, None, None]
    look = nn.Sequential(nn.Conv2d(1, 1, 1)).double()
    masked = activation_variance(look, x, [0.0, 90.0, 45.0], None, ("mean",), fill="reflect")
    # A disc of one value is the same at every angle, corners and all.
    assert masked["TV"].iloc[0] == pytest.approx(0, abs=1e-12)
    assert activation_variance(look, x, [0.0, 45.0], None, ("mean",), mask=None)["TV"].iloc[0] > 0.01


@pytest.mark.usefixtures("summing")
def test_a_constant_unit_is_dead_and_exactly_zero() -> None:
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
    # Quarter turns move no pixel value: the mean of a map is invariant, V = 0 up to the order of summation.
    alive = units[units["unit"] == 1]
    assert alive["V"].max() < 1e-12


def test_quarter_turns_averaged_are_invariant_to_them_exactly() -> None:
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


def test_turned_back_maps_of_a_pointwise_network_are_constant() -> None:
    torch.manual_seed(0)
    pointwise = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU()).double()
    quarters = [0.0, 90.0, 180.0, 270.0]
    back = activation_variance(pointwise, images(5), quarters, same_equivariant=True)
    assert back["TV"].max() == 0
    ahead = activation_variance(pointwise, images(5), quarters, aggregation=("none",))
    assert ahead["V"].max() > 0.5


def test_an_in_place_activation_does_not_change_what_was_recorded() -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(1, 3, 3)
    plain = nn.Sequential(convolution, nn.Flatten(), nn.Linear(3 * 49, 2), nn.ReLU()).double()
    in_place = nn.Sequential(*list(plain)[:-1], nn.ReLU(inplace=True))
    first, second = (activation_variance(model, images(4), ANGLES) for model in (plain, in_place))
    assert first["layer"].unique().tolist() == ["0", "2", "3"]
    assert first.equals(second)
    assert local_equivariance_error(plain, images(4)).equals(local_equivariance_error(in_place, images(4)))


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


def test_a_module_that_runs_twice_counts_as_two_layers() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(1, 1, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.act(self.act(self.conv(x)) - 0.1)
            return out.flatten(1)

    units = activation_variance(Twice().double(), images(4), ANGLES, None, ("mean",))
    assert units["layer"].tolist() == ["conv", "act", "act:2"]
    assert units["kind"].tolist() == ["convolution", "activation", "activation"]


def test_units_of_any_timm_model_are_its_channels() -> None:
    for name, pool in (("convnext_atto", "blur3"), ("mobilenetv3_small_100", "decimate")):
        model = create_model(f"timm:{name}", (3, 32, 32), 4, pool, "avg")
        x = torch.rand(3, 3, 32, 32)
        units = activation_variance(model, x, [0.0, 45.0], None, ("mean",))
        sizes = units.groupby("layer", sort=False).size()
        modules = dict(model.named_modules())
        for layer, size in sizes.items():
            module = modules[str(layer).partition(":")[0]]
            if isinstance(module, nn.Conv2d):
                assert size == module.out_channels
            if isinstance(module, nn.Linear):
                assert size == module.out_features
        assert {"convolution", "normalisation", "linear"} <= set(units["kind"])
    # Behind a linear layer whose units are on the last axis, so are those of the activation.
    convnext = create_model("timm:convnext_atto", (3, 32, 32), 4, "decimate", "avg")
    found = activation_variance(convnext, torch.rand(3, 3, 32, 32), [0.0, 45.0], None, ("mean",))
    sizes = found.groupby("layer", sort=False).size()
    acts = [layer for layer in sizes.index if str(layer).endswith("mlp.act")]
    assert acts
    assert all(sizes[layer] == sizes[str(layer).replace("act", "fc1")] for layer in acts)


def test_layers_come_in_order_of_execution_and_leave_no_hook() -> None:
    model = create_model("resnet18", (1, 16, 16), 4, "decimate", width=2)
    layers = activation_variance(model, images(2, 16).float(), ANGLES)["layer"].unique().tolist()
    assert layers[:3] == ["conv", "norm", "relu"]
    assert layers[-1] == "classifier.linear"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_bad_input_is_one_line() -> None:
    model, x = small_network(), images(3, 12)
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


def test_the_old_protocol_has_the_old_faults() -> None:
    """By hand: windows in place of batches, a jitter of its own for each deviation, each group's own normalisation."""
    model, x = small_network(), images(130, 12)
    labels = torch.arange(130) % 2
    mean, std = torch.tensor([0.3]), torch.tensor([0.25])
    found = quiroga2019_variance(model, x, ANGLES, labels, mean, std, torch.Generator().manual_seed(0), ("mean",))
    assert found["layer"].iloc[-1] == "log_softmax"
    draws = torch.Generator().manual_seed(0)
    expected = []
    for members in (torch.arange(130), torch.arange(0, 130, 2), torch.arange(1, 130, 2)):
        own = x[members]
        first, second = (torch.rand(2, 4, generator=draws) * 2 - 1).tolist()
        shown = (own - own.mean()) / own.std(correction=0) * 0.25 + 0.3
        black = (0 - own.mean()) / own.std(correction=0) * 0.25 + 0.3

        def conv2(jitter: list[float], shown: Tensor = shown, black: Tensor = black) -> Tensor:
            turned = [rotate_all(shown - black, a + j) + black for a, j in zip(ANGLES, jitter, strict=True)]
            return torch.stack([outputs(model, turn)["conv2"].mean((2, 3)) for turn in turned])

        windows = [image for start in range(max(1, len(own) // 64)) for image in range(start, start + 64)]
        tv, sv = conv2(first).std(0)[windows].mean(0), conv2(second).std(1).mean(0)
        expected.append((tv, sv, tv / sv))
    rows = found[found["layer"] == "conv2"]
    np.testing.assert_allclose(rows["TV"], expected[0][0], rtol=1e-6)
    np.testing.assert_allclose(rows["SV"], expected[0][1], rtol=1e-6)
    np.testing.assert_allclose(rows["V"], expected[0][2], rtol=1e-6)
    np.testing.assert_allclose(rows["V_stratified"], (expected[1][2] + expected[2][2]) / 2, rtol=1e-6)
    still = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten()).double()
    nn.init.zeros_(still[0].weight)  # type: ignore[arg-type]
    dead = quiroga2019_variance(still, x, ANGLES, labels, mean, std, torch.Generator().manual_seed(0), ("mean",))
    assert dead[dead["layer"] == "0"][["V", "V_stratified"]].to_numpy().tolist() == [[1.0, 1.0]]


def test_decisions_against_the_angle() -> None:
    decisions = torch.tensor([[0, 1, 6, 9], [0, 0, 9, 9], [0, 1, 9, 6]])
    labels = torch.tensor([0, 1, 6, 9])
    names = [str(digit) for digit in range(10)]
    table = decisions_by_angle(decisions, labels, [0.0, 90.0, 180.0], names)
    whole = table[table["class"] == "all"]
    assert whole["accuracy"].tolist() == [1.0, 0.5, 0.5]
    assert whole["consistency"].tolist() == [1.0, 0.5, 0.5]
    assert whole["worst"].tolist() == [1.0, 0.5, 0.25]
    assert table[table["class"] == "6"]["accuracy"].tolist() == [1.0, 0.0, 0.0]
    assert sorted(table["class"].unique()) == ["0", "1", "6", "9", "all"]
    merged = decisions_by_angle(decisions, labels, [0.0, 90.0, 180.0], names, merged=(6, 9))
    assert merged[merged["class"] == "all"]["worst"].tolist() == [1.0, 0.75, 0.75]
    assert merged[merged["class"] == "6"]["consistency"].tolist() == [1.0, 1.0, 1.0]
    # The worst case grows with the distance, on both sides.
    both = decisions_by_angle(torch.tensor([[0], [1], [0], [1]]), torch.tensor([0]), [0.0, 90.0, 180.0, 270.0], names)
    assert both[both["class"] == "all"]["worst"].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_decisions_of_a_sweep_are_those_of_the_network() -> None:
    model, x = small_network(), images(5, 12)
    labels = torch.tensor([2, 0, 1, 0, 2])
    found = sweep(model, x, ANGLES, labels, ("mean",), chunk=2)
    for angle, own in zip(ANGLES, found.decisions, strict=True):
        assert torch.equal(own, model(rotate_all(x, angle) * disc_mask((12, 12))).argmax(1))


def turning_slope(maps: Tensor) -> Tensor:
    """d/dt of maps (b, c, n, n) turned counter-clockwise by t radians, by central differences (np.gradient)."""
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = np.gradient(padded, axis=3)[..., 1:-1, 1:-1], np.gradient(padded, axis=2)[..., 1:-1, 1:-1]
    place = torch.arange(maps.shape[-1], dtype=torch.float64) - (maps.shape[-1] - 1) / 2
    # Where the pixel (x right, y down) comes from moves by (-y, x).
    return torch.from_numpy(across) * -place[:, None] + torch.from_numpy(down) * place


def test_the_lie_derivative_is_the_slope_of_turning() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(162, 3)).double()
    x = images(5)
    found = local_equivariance_error(model, x, chunk=2).set_index("layer")
    step = 1e-5
    ahead, behind = (outputs(model, x + sign * step * turning_slope(x)) for sign in (1, -1))
    here = outputs(model, x)
    for layer in ("0", "1", "3"):
        slope = (ahead[layer] - behind[layer]) / (2 * step)
        if slope.dim() == 4:
            slope = (slope - turning_slope(here[layer]))[:, :, disc_mask((9, 9))].flatten(1)
            units = here[layer][:, :, disc_mask((9, 9))].flatten(1)
        else:
            units = here[layer]
        lee = float(slope.square().mean())
        assert found.loc[layer, "LEE"] == pytest.approx(lee, rel=2e-3)
        spread = float(units.var(0, correction=0).mean())
        assert found.loc[layer, "LEE_relative"] == pytest.approx((lee / spread) ** 0.5, rel=2e-3)
    # What acts pixel by pixel commutes with turning.
    pointwise = local_equivariance_error(nn.Sequential(nn.Conv2d(1, 2, 1)).double(), x)
    assert pointwise["LEE"].iloc[0] == pytest.approx(0, abs=1e-9)


def test_cka_against_its_definition() -> None:
    model, x = small_network(), images(6, 12)
    found = rotated_cka(model, x, [0.0, 90.0, 40.0]).set_index(["layer", "angle"])["CKA"]
    assert found.xs(0.0, level="angle").dropna().to_numpy() == pytest.approx(1)
    mask = disc_mask((12, 12))
    for layer in ("conv1", "relu4"):
        first, second = (outputs(model, rotate_all(x, angle) * mask)[layer].flatten(1) for angle in (0.0, 40.0))
        first, second = first - first.mean(0), second - second.mean(0)
        expected = (second.T @ first).square().sum() / ((first.T @ first).norm() * (second.T @ second).norm())
        assert found[layer, 40.0] == pytest.approx(float(expected), rel=1e-9)
    # An image-wise mean does not care: invariant layers keep a similarity of 1.
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2)).double()
    assert rotated_cka(pooled, x, [90.0])["CKA"].iloc[0] == pytest.approx(1)


def test_tmeasures_agrees() -> None:
    """Quiroga's own later library, on the same turned images (its rotation takes degrees for radians)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("tmeasures", reason="needs tmeasures and statsmodels, no dependencies")
        import tmeasures.pytorch as library

        model, x = small_network(), images(20, 12)
        # Its sums are not shifted: deviations that are small beside their mean, as of default weights, lose digits.
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5 if parameter.dim() > 1 else 0)
        turned = torch.stack([rotate_all(x, angle) * disc_mask((12, 12)) for angle in ANGLES])

        class Turned(torch.utils.data.Dataset[Tensor]):
            def __len__(self) -> int:
                return len(x)

            def __getitem__(self, place: int) -> Tensor:
                return torch.full((1,), place)

        class Turn:
            def __init__(self, place: int) -> None:
                self.place = place

            def __call__(self, image: Tensor) -> Tensor:
                return turned[self.place, int(image)]

        class Activations(library.ActivationsModule):  # type: ignore[misc,name-defined]
            def activation_names(self) -> list[str]:
                return list(recorded_layers(model))

            def forward_activations(self, pixels: Tensor) -> list[Tensor]:
                return list(outputs(model, pixels).values())

        options = library.PyTorchMeasureOptions(batch_size=5, verbose=False)
        measure = library.NormalizedVarianceInvariance()
        result = measure.eval(Turned(), [Turn(place) for place in range(4)], Activations(), options)
    units = activation_variance(model, x, ANGLES, None, ("none",))
    worst, compared = 0.0, 0
    for layer, theirs, sv in zip(result.layer_names, result.layers, result.y_result.layers, strict=True):
        own = units[units["layer"] == layer]
        # Where its SV rounds to the root of a negative number it gives TV in place of V.
        alive = np.isfinite(own["V"].to_numpy()) & np.isfinite(sv.flatten().numpy())
        if alive.any():
            worst = max(worst, float(np.max(np.abs(own["V"][alive] / theirs.flatten().numpy()[alive] - 1))))
        compared += int(alive.sum())
    print(f"largest relative difference from tmeasures over {compared} of {len(units)} units: {worst:.1e}")
    assert compared > 0.5 * len(units)
    assert worst < 1e-6
