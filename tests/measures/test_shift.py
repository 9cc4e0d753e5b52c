"""Shift measures against naive loops in float64, and their properties."""

from __future__ import annotations

import itertools
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift
from poolbench.measures.classification import has_learned, predictions


def shape_net(num_pooling: int, padding_mode: str = "zeros", pool: str = "max") -> nn.Module:
    torch.manual_seed(3)
    model = create_model("shape_net", (1, 32, 32), 2, pool, "avg", padding_mode, num_pooling=num_pooling)  # type: ignore[arg-type]
    return model.double().eval()


def images(count: int, size: int = 32, channels: int = 1) -> Tensor:
    return torch.rand(count, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Classifier(nn.Module):
    """A position-aware linear classifier of ten classes: shifts change its decisions."""

    def __init__(self, size: int) -> None:
        super().__init__()
        weight = torch.randn(10, size * size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T


def test_a_canvas_map_is_one_pass_per_position() -> None:
    model = shape_net(1)
    stamp = images(1, 5)[0]
    canvas = torch.full((1, 9, 11), 0.3, dtype=torch.float64)
    found = shift.canvas_map(model, stamp, canvas, batch=7)
    assert found.shape == (9, 11, 1)
    for y, x in itertools.product(range(9), range(11)):
        pasted = canvas.clone()
        for i, j in itertools.product(range(5), range(5)):
            if 0 <= y + i - 2 < 9 and 0 <= x + j - 2 < 11:
                pasted[0, y + i - 2, x + j - 2] = stamp[0, i, j]
        assert float(found[y, x, 0]) == pytest.approx(float(model(pasted[None]).detach()), abs=1e-12)


@pytest.mark.parametrize(("num_pooling", "distinct"), [(0, 1), (1, 4), (2, 16)])
def test_the_interior_of_a_map_has_one_value_per_phase(num_pooling: int, distinct: int) -> None:
    stamp = torch.ones(1, 5, 5, dtype=torch.float64)
    found = shift.canvas_map(shape_net(num_pooling), stamp, torch.zeros(1, 40, 40, dtype=torch.float64))[..., 0]
    interior = found[14:26, 14:26]
    assert len(torch.unique((interior * 1e9).round())) == distinct
    period = 2**num_pooling
    torch.testing.assert_close(interior[period:], interior[:-period], rtol=0, atol=1e-12)


def test_map_statistics_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0], [0.0, -1.0, -2.0, 0.0], [0.0, -1.5, -4.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
    found = shift.map_statistics(logits, margin=1)
    assert found.interior_range == pytest.approx(3.0)
    assert found.flips == pytest.approx(2 / 16)
    probability = torch.sigmoid(logits.double())
    mean = float(probability.sum()) / 16
    assert found.deviation == pytest.approx(sqrt(sum((float(p) - mean) ** 2 for p in probability.flatten()) / 16))
    assert found.range == pytest.approx(float(torch.sigmoid(torch.tensor(9.0)) - torch.sigmoid(torch.tensor(-4.0))))
    with pytest.raises(ValueError, match="leaves no interior"):
        shift.map_statistics(logits, margin=2)


def test_stamps_have_a_centre_and_the_channels_of_the_canvas() -> None:
    with pytest.raises(ValueError, match="odd sizes"):
        shift.canvas_map(shape_net(0), torch.ones(1, 4, 5), torch.zeros(1, 9, 9))
    with pytest.raises(ValueError, match="share their channels"):
        shift.canvas_map(shape_net(0), torch.ones(3, 5, 5), torch.zeros(1, 9, 9))


def test_consistency_against_pairs_of_shifts() -> None:
    generator = torch.Generator().manual_seed(2)
    decisions = torch.randint(0, 3, (4, 6), generator=generator)
    labels = torch.randint(0, 3, (6,), generator=generator)
    found = shift.consistency_of(decisions, labels, same_phase=1 / 4)
    agree = [float(decisions[s, i] == decisions[t, i]) for i in range(6) for s in range(4) for t in range(4)]
    right = [[bool(decisions[s, i] == labels[i]) for s in range(4)] for i in range(6)]
    assert found.consistency == pytest.approx(sum(agree) / len(agree))
    assert found.corrected == pytest.approx((found.consistency - 0.25) / 0.75)
    assert found.mean_accuracy == pytest.approx(sum(map(sum, right)) / 24)
    assert found.worst_accuracy == pytest.approx(sum(map(all, right)) / 6)


def test_exact_consistency_equals_all_circular_shifts() -> None:
    model = shape_net(2, "circular")
    with torch.no_grad():
        # Put the decision in the middle of the outputs, so that shifts do change it.
        model.get_submodule("conv3").bias -= model(images(20, 16)).mean()
    x, labels = images(20, 16), torch.arange(20) % 2
    found = shift.exact_consistency(model, x, labels, period=4)
    every = torch.stack(
        [predictions(model(torch.roll(x, s, dims=(-2, -1)))) for s in itertools.product(range(16), range(16))]
    )
    expected = shift.consistency_of(every, labels, same_phase=1 / 16)
    assert found.consistency == pytest.approx(expected.consistency, abs=1e-12)
    assert found.worst_accuracy == pytest.approx(expected.worst_accuracy, abs=1e-12)
    assert found.mean_accuracy == pytest.approx(expected.mean_accuracy, abs=1e-12)
    assert found.consistency < 1


def test_a_network_that_is_not_periodic_is_refused() -> None:
    with pytest.raises(shift.NotPeriodic, match="zero padding near an object"):
        shift.exact_consistency(Classifier(16), images(8, 16), torch.zeros(8, dtype=torch.int64), period=2)


def test_a_constant_predictor_is_consistent_and_has_not_learned() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]], dtype=x.dtype).repeat(len(x), 1)

    labels = torch.arange(30) % 2
    found = shift.exact_consistency(Constant(), images(30, 16), labels, period=4)
    assert (found.consistency, found.corrected) == (1, 1)
    assert found.worst_accuracy == 0.5
    assert not has_learned(found.mean_accuracy, classes=2, samples=30)


def test_a_random_guesser_has_no_consistency_left_after_correction() -> None:
    decisions = torch.randint(0, 10, (16, 20_000), generator=torch.Generator().manual_seed(0))
    # Guesses agree by chance 1/10 between phases; against 0/1 agreement C' is that chance, not 0.
    found = shift.consistency_of(decisions, torch.zeros(20_000, dtype=torch.int64), same_phase=1 / 16)
    assert found.corrected == pytest.approx(0.1, abs=0.005)


def test_sampled_consistency_against_a_loop() -> None:
    x, model = images(50, 12), Classifier(12)
    agreement, error = shift.sampled_consistency(model, x, reach=3, generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(9)
    shifts = [torch.randint(-3, 3, (50, 2), generator=generator) for _ in range(2)]
    decisions = [
        [int(predictions(model(torch.roll(x[i : i + 1], s[i].tolist(), dims=(-2, -1))))) for i in range(50)]
        for s in shifts
    ]
    expected = sum(a == b for a, b in zip(*decisions, strict=True)) / 50
    assert agreement == pytest.approx(expected)
    assert 0 < agreement < 1
    assert error == pytest.approx(sqrt(expected * (1 - expected) / 50))


def test_roll_each_rolls_each_image_by_its_own_shift() -> None:
    x = images(6, 7, channels=2)
    moved = shift.roll_each(x, 3, torch.Generator().manual_seed(4))
    shifts = torch.randint(-3, 3, (6, 2), generator=torch.Generator().manual_seed(4))
    for i in range(6):
        assert torch.equal(moved[i], torch.roll(x[i], shifts[i].tolist(), dims=(-2, -1)))
