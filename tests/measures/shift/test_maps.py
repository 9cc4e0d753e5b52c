"""Canvas maps: the periodic way against one pass per position, coarser grids, and the number of passes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift
from poolbench.measures.shift.scene import Scene


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
    """Returns the mean of the left half: local features, but no periodic output."""

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


class Transformer(nn.Module):
    """Self-attention over 8x8 patches: local patches first, then every token depends on all."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 8, stride=8)
        self.norm, self.mix, self.out = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)
        self.project = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.patches(x).flatten(2).transpose(1, 2))
        mixed = self.project(self.mix(tokens, tokens, tokens)[0])
        logits: Tensor = self.out(mixed.mean(dim=1))
        return logits


@pytest.mark.parametrize("model", [Somewhere(), Everywhere(), Transformer()])
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


def test_bad_stamps_and_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="odd sides"):
        shift.canvas_map(shape_net(0), torch.ones(1, 4, 5), torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="equal channels"):
        shift.canvas_map(shape_net(0), torch.ones(3, 5, 5), torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="step is at least 1 pixel, got 0"):
        shift.plan_map(shape_net(0), torch.ones(1, 5, 5), torch.zeros(1, 9, 9), step=0)


def test_positions_are_evaluated_once() -> None:
    model = Counted(shape_net(0, size=32))
    calls: list[tuple[int, int]] = []
    scene = Scene(
        model, square(1), torch.zeros(1, 32, 32, dtype=torch.float64), 9, lambda *passes: calls.append(passes)
    )
    first = scene.at([(3, 4), (5, 6), (3, 4)])
    again = scene.block(torch.tensor([3, 5]), torch.tensor([4, 6]))
    assert model.images == 4
    assert torch.equal(first[0], first[2])
    assert torch.equal(again[0, 0], first[0])
    assert torch.equal(scene.lines(1, torch.tensor([4]), torch.tensor([3, 5]))[0], again[:, 0])
    assert calls == [(2, 9), (4, 9)]


@pytest.fixture(scope="module")
def full_map() -> Tensor:
    """The exhaustive map of one pooling layer on a canvas of 96x96."""
    canvas = torch.zeros(1, 96, 96)
    return shift.canvas_map(shape_net(1, dtype=torch.float32), square(2, torch.float32), canvas, exhaustive=True)


@pytest.mark.parametrize(
    ("step", "exhaustive", "periodic"),
    # From a step of 3 on, the grid has fewer positions than the period and the border of the whole map.
    [(1, False, True), (2, False, True), (3, False, False), (8, False, False), (5, True, False)],
)
def test_a_coarse_map_is_every_step_th_position_of_the_full_map(
    step: int, exhaustive: bool, periodic: bool, full_map: Tensor
) -> None:
    model = Counted(shape_net(1, dtype=torch.float32))
    stamp, canvas = square(2, torch.float32), torch.zeros(1, 96, 96)
    plan = shift.plan_map(model, stamp, canvas, exhaustive=exhaustive, step=step)
    model.images = 0
    found = shift.canvas_map(model, stamp, canvas, exhaustive=exhaustive, step=step)
    expected = full_map[::step, ::step]
    assert plan.periodic is periodic
    assert (plan.rows, plan.columns) == found.shape[:2] == expected.shape[:2]
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert model.images <= min(plan.passes, plan.positions) + 2  # two passes find stride and reach


@pytest.mark.parametrize(("step", "positions"), [(5, 13 * 13), (16, 16)])
def test_a_map_of_a_network_with_attention_is_planned_and_counted_exactly(step: int, positions: int) -> None:
    torch.manual_seed(0)
    model = Counted(Transformer()).eval()
    stamp, canvas = square(1, torch.float32), torch.zeros(1, 64, 64)
    plan = shift.plan_map(model, stamp, canvas, step=step)
    assert not plan.periodic
    assert plan.passes == plan.positions == positions
    calls: list[tuple[int, int]] = []
    model.images = 0
    shift.canvas_map(model, stamp, canvas, step=step, progress=lambda *passes: calls.append(passes))
    assert model.images == positions + 2
    assert calls[-1] == (positions, positions)
    assert calls == sorted(calls)


def test_progress_counts_the_passes_of_a_period_that_fails_its_check() -> None:
    model = Counted(Somewhere())
    stamp, canvas = square(1, torch.float32), torch.zeros(1, 40, 40)
    plan = shift.plan_map(model, stamp, canvas)
    assert plan.periodic
    assert plan.passes < plan.positions
    calls: list[tuple[int, int]] = []
    model.images = 0
    shift.canvas_map(model, stamp, canvas, progress=lambda *passes: calls.append(passes))
    assert calls[0][1] == plan.passes
    assert calls[-1] == (1600, 1600)
    assert model.images == 1600 + 2
