"""Canvas maps: the periodic way against one pass per position, and their parts by hand."""

from __future__ import annotations

import itertools
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift
from poolbench.measures.shift import maps


def shape_net(num_pooling: int, pool: str = "max", size: int = 96, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    model = create_model("shape_net", (1, size, size), 2, pool, "avg", "zeros", num_pooling=num_pooling)
    return model.to(dtype).eval()


def square(half: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.ones(1, 2 * half + 1, 2 * half + 1, dtype=dtype)


class Counted(nn.Module):
    """Counts the images that pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        outputs: Tensor = self.model(x)
        return outputs


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_canvas_map_is_one_pass_per_position(exhaustive: bool) -> None:
    model = shape_net(1, size=32)
    stamp = torch.rand(1, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    canvas = torch.full((1, 9, 11), 0.3, dtype=torch.float64)
    found = shift.canvas_map(model, stamp, canvas, exhaustive=exhaustive)
    assert found.shape == (9, 11, 1)
    for y, x in itertools.product(range(9), range(11)):
        pasted = canvas.clone()
        for i, j in itertools.product(range(5), range(3)):
            if 0 <= y + i - 2 < 9 and 0 <= x + j - 1 < 11:
                pasted[0, y + i - 2, x + j - 1] = stamp[0, i, j]
        assert float(found[y, x, 0]) == pytest.approx(float(model(pasted[None]).detach()), abs=1e-12)


@pytest.mark.parametrize(
    ("pool", "num_pooling"), [("max", 0), ("max", 1), ("max", 2), ("blur3", 1), ("max_blur3", 2), ("aps", 1)]
)
def test_the_periodic_way_gives_the_exhaustive_map_from_fewer_passes(pool: str, num_pooling: int) -> None:
    model = Counted(shape_net(num_pooling, pool, dtype=torch.float32))
    stamp, canvas = square(2, torch.float32), torch.zeros(1, 96, 88)
    expected = shift.canvas_map(model, stamp, canvas, exhaustive=True)
    assert model.images == 96 * 88
    model.images = 0
    found = shift.canvas_map(model, stamp, canvas)
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert model.images < 96 * 88 / 2


def test_the_published_canvas_needs_a_fiftieth_of_the_passes() -> None:
    model = Counted(shape_net(1, size=224, dtype=torch.float32))
    shift.canvas_map(model, square(6, torch.float32), torch.zeros(1, 224, 224))
    assert model.images < 224 * 224 / 40


def test_a_period_can_be_given_and_a_false_one_costs_time_but_no_accuracy() -> None:
    model, stamp = shape_net(1, dtype=torch.float32), square(2, torch.float32)
    canvas = torch.zeros(1, 64, 64)
    expected = shift.canvas_map(model, stamp, canvas, exhaustive=True)
    for period in (1, 2, 3, 4):
        found = shift.canvas_map(model, stamp, canvas, period=period)
        assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


class Somewhere(nn.Module):
    """Answers with the brightness left of the middle: local features, but no periodic answer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.conv(x)
        return maps[..., : x.shape[-1] // 2].mean(dim=(-2, -1))


class Everywhere(nn.Module):
    """Compares every pixel with the mean of all: each output depends on the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(dim=(-2, -1), keepdim=True)).relu().square().mean(dim=(-2, -1))


@pytest.mark.parametrize("model", [Somewhere(), Everywhere()])
def test_networks_without_a_period_get_the_exhaustive_map(model: nn.Module) -> None:
    model = model.double()
    canvas = torch.zeros(1, 40, 40, dtype=torch.float64)
    found = shift.canvas_map(model, square(2), canvas)
    torch.testing.assert_close(found, shift.canvas_map(model, square(2), canvas, exhaustive=True))


def test_a_canvas_with_a_pattern_gets_the_exhaustive_map() -> None:
    model = Counted(shape_net(1, size=40))
    canvas = torch.rand(1, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shift.canvas_map(model, square(2), canvas)
    assert model.images == 40 * 40


def test_stamps_have_a_centre_and_the_channels_of_the_canvas() -> None:
    with pytest.raises(ValueError, match="odd sizes"):
        shift.canvas_map(shape_net(0), torch.ones(1, 4, 5), torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="share their channels"):
        shift.canvas_map(shape_net(0), torch.ones(3, 5, 5), torch.zeros(1, 9, 9))


@pytest.mark.parametrize(
    ("architecture", "shape", "expected"),
    [("resnet20", (3, 32, 32), 4), ("vgg_like", (3, 32, 32), 16), ("all_convolutional", (1, 28, 28), 4)],
)
def test_the_total_stride_is_read_off_the_maps(architecture: str, shape: tuple[int, int, int], expected: int) -> None:
    model = create_model(architecture, shape, 10, "max", "avg", width=4)
    assert shift.total_stride(model, torch.zeros(shape)) == expected


def test_the_receptive_reach_is_that_of_the_kernels() -> None:
    canvas = torch.zeros(1, 64, 64)
    convs = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))
    assert shift.receptive_reach(convs, canvas) == 3
    dead = nn.Sequential(nn.Conv2d(1, 1, 7, padding=3))
    nn.init.zeros_(dead[0].weight)  # type: ignore[arg-type]
    assert shift.receptive_reach(dead, canvas) == 3
    assert shift.receptive_reach(nn.Sequential(nn.Conv2d(1, 1, 63, padding=31)), canvas) is None


@pytest.mark.parametrize(("num_pooling", "distinct"), [(0, 1), (1, 4), (2, 16)])
def test_the_interior_of_a_map_has_one_value_per_phase(num_pooling: int, distinct: int) -> None:
    found = shift.canvas_map(shape_net(num_pooling), square(2), torch.zeros(1, 96, 96, dtype=torch.float64))[..., 0]
    parts = shift.decompose(found, 2**num_pooling)
    assert parts is not None
    assert len(torch.unique((parts.phases * 1e9).round())) == distinct
    assert parts.noise_deviation < 1e-9
    total = parts.level + parts.phase + parts.boundary + parts.noise
    torch.testing.assert_close(total, found, rtol=0, atol=1e-12)
    inside = parts.boundary[parts.margin : -parts.margin, parts.margin : -parts.margin]
    assert float(inside.abs().max()) == 0
    assert float(parts.boundary[parts.margin - 1].abs().max()) > 1e-6


def test_map_parts_by_hand() -> None:
    period = torch.tensor([[1.0, 3.0], [-2.0, 6.0]], dtype=torch.float64)
    logits = period.repeat(5, 5)
    logits[0, 4] += 7
    logits[9, 2] -= 1
    parts = shift.decompose(logits, 2)
    assert parts is not None
    assert parts.margin == 1
    assert torch.equal(parts.phases, period)
    assert parts.level == 2
    assert parts.phase_range == 8
    assert parts.phase_deviation == pytest.approx(sqrt((1 + 1 + 16 + 16) / 4))
    assert parts.boundary_deviation == pytest.approx(sqrt((49 + 1) / 100))
    assert parts.noise_deviation == 0
    assert shift.decompose(torch.arange(100.0).view(10, 10) ** 2, 2) is None


def test_margins_of_odd_depth_keep_the_phases_in_their_place() -> None:
    period = torch.arange(9, dtype=torch.float64).view(3, 3)
    logits = period.repeat(6, 6)
    for margin in range(4):
        noisy = logits.clone()
        if margin:
            noisy[margin - 1] += 5
        parts = shift.decompose(noisy, 3)
        assert parts is not None
        assert parts.margin == margin == shift.interior_margin(noisy, 3)
        assert torch.equal(parts.phases, period)


def test_map_statistics_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0], [0.0, -1.0, -2.0, 0.0], [0.0, -1.5, -4.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
    found = shift.map_statistics(logits[..., None])
    assert found.flips == pytest.approx(2 / 16)
    probability = torch.sigmoid(logits.double())
    mean = float(probability.sum()) / 16
    assert found.deviation == pytest.approx(sqrt(sum((float(p) - mean) ** 2 for p in probability.flatten()) / 16))
    assert found.range == pytest.approx(float(torch.sigmoid(torch.tensor(9.0)) - torch.sigmoid(torch.tensor(-4.0))))


def test_log_odds_are_those_of_the_probabilities() -> None:
    outputs = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probability = outputs.softmax(dim=-1)
    for target in range(3):
        expected = (probability[..., target] / (1 - probability[..., target])).log()
        torch.testing.assert_close(shift.log_odds(outputs, target), expected)
    assert torch.equal(shift.log_odds(outputs[..., :1], 0), -shift.log_odds(outputs[..., :1], 1))
    decisions = outputs.argmax(dim=-1).flatten().tolist()
    most = max(decisions.count(c) for c in range(3))
    assert shift.map_statistics(outputs, 2).flips == pytest.approx(1 - most / 20)


def test_positions_are_evaluated_once() -> None:
    model = Counted(shape_net(0, size=32))
    scene = maps._Scene(model, square(1), torch.zeros(1, 32, 32, dtype=torch.float64))
    first = scene.at([(3, 4), (5, 6), (3, 4)])
    again = scene.block(torch.tensor([3, 5]), torch.tensor([4, 6]))
    assert model.images == 4
    assert torch.equal(first[0], first[2])
    assert torch.equal(again[0, 0], first[0])
    assert torch.equal(scene.lines(1, torch.tensor([4]), torch.tensor([3, 5]))[0], again[:, 0])
