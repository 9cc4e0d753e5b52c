"""Shift measures against naive loops in float64, and their properties."""

from __future__ import annotations

import itertools
from math import sqrt
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift
from poolbench.measures.classification import predictions


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


def test_consistency_against_pairs_of_shifts() -> None:
    generator = torch.Generator().manual_seed(2)
    decisions = torch.randint(0, 3, (4, 6), generator=generator)
    labels = torch.randint(0, 3, (6,), generator=generator)
    found = shift.consistency_of(decisions, labels)
    agree = [float(decisions[s, i] == decisions[t, i]) for i in range(6) for s in range(4) for t in range(4)]
    right = [[bool(decisions[s, i] == labels[i]) for s in range(4)] for i in range(6)]
    assert found.consistency == pytest.approx(sum(agree) / len(agree))
    assert found.corrected == pytest.approx((found.consistency - 0.25) / 0.75)
    assert found.mean_accuracy == pytest.approx(sum(map(sum, right)) / 24)
    assert found.worst_accuracy == pytest.approx(sum(map(all, right)) / 6)
    # Fleiss 1971: pairs of different raters per subject against the share of each category among all ratings.
    different = [
        float(decisions[s, i] == decisions[t, i]) for i in range(6) for s in range(4) for t in range(4) if s != t
    ]
    by_chance = sum((float((decisions == c).sum()) / 24) ** 2 for c in range(3))
    observed = sum(different) / len(different)
    assert found.corrected == pytest.approx(observed)
    assert found.kappa == pytest.approx((observed - by_chance) / (1 - by_chance))


def test_exact_consistency_equals_all_circular_shifts() -> None:
    model = shape_net(2, "circular")
    with torch.no_grad():
        # Put the decision in the middle of the outputs, so that shifts do change it.
        model.get_submodule("conv3").bias -= model(images(20, 16)).mean()
    x, labels = images(20, 16), torch.arange(20) % 2
    found = shift.exact_consistency(model, x, labels, total_stride=4)
    expected = shift.consistency_of(
        torch.stack(
            [predictions(model(torch.roll(x, s, dims=(-2, -1)))) for s in itertools.product(range(16), range(16))]
        ),
        labels,
    )
    assert found.consistency == pytest.approx(expected.consistency, abs=1e-12)
    assert found.worst_accuracy == pytest.approx(expected.worst_accuracy, abs=1e-12)
    assert found.mean_accuracy == pytest.approx(expected.mean_accuracy, abs=1e-12)
    assert found.consistency < 1


def test_a_network_that_is_not_periodic_is_refused() -> None:
    with pytest.raises(shift.NotPeriodic, match="zero padding near an object"):
        shift.exact_consistency(Classifier(16), images(8, 16), torch.zeros(8, dtype=torch.int64), total_stride=2)


def test_a_constant_predictor_is_consistent_and_gives_itself_away() -> None:
    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[1.0, 0.0]], dtype=x.dtype).repeat(len(x), 1)

    labels = torch.arange(30) % 2
    found = shift.exact_consistency(Constant(), images(30, 16), labels, total_stride=4)
    assert (found.consistency, found.corrected) == (1, 1)
    assert found.worst_accuracy == 0.5
    with torch.no_grad():
        assert predictions(Constant()(images(30, 16))).unique().numel() == 1


def test_a_random_guesser_has_no_consistency_left_beyond_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    for classes, weights in ((10, torch.ones(10)), (3, torch.tensor([0.7, 0.2, 0.1]))):
        decisions = torch.multinomial(weights, 16 * 20_000, replacement=True, generator=generator).view(16, -1)
        found = shift.consistency_of(decisions, torch.zeros(20_000, dtype=torch.int64))
        # Without the same shift drawn twice guesses still agree as often as their classes coincide ...
        assert found.corrected == pytest.approx(float((weights / weights.sum()).square().sum()), abs=0.005)
        # ... and beyond that not at all.
        assert found.kappa == pytest.approx(0, abs=0.005), classes


def test_the_grid_holds_every_shift_up_to_its_reach() -> None:
    model, x = Classifier(12), images(20, 12)
    labels = predictions(model(x))
    found = shift.shift_grid(model, x, labels, reach=2)
    every = [
        predictions(model(torch.roll(x, (dy, dx), dims=(-2, -1))))
        for dy in (-2, -1, 0, 1, 2)
        for dx in (-2, -1, 0, 1, 2)
    ]
    assert found == shift.consistency_of(torch.stack(every), labels)
    assert found.worst_accuracy < found.mean_accuracy < 1


def test_whole_shifts_of_the_subpixel_consistency_are_those_of_the_grid() -> None:
    model, x = Classifier(12), images(20, 12)
    labels = predictions(model(x))
    whole = [(float(dy), float(dx)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert shift.subpixel_consistency(model, x, labels, whole) == shift.shift_grid(model, x, labels, reach=1)
    halves = shift.subpixel_consistency(model, x, labels, [(0, 0), (0.5, 0), (0, 0.5), (0.5, 0.5)])
    assert 0 < halves.consistency < 1


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


@pytest.mark.parametrize("boundary", ["crop", "canvas"])
def test_sampled_consistency_names_its_border(boundary: Literal["crop", "canvas"]) -> None:
    x = images(40, 12)
    model = Classifier(12 if boundary == "crop" else 18)
    agreement, _ = shift.sampled_consistency(model, x, 3, torch.Generator().manual_seed(9), boundary)
    generator = torch.Generator().manual_seed(9)
    decisions = []
    for _ in range(2):
        shifts = torch.randint(-3, 3, (40, 2), generator=generator)
        decisions.append(predictions(model(shift.move(x, shifts, boundary, 3))))
    assert agreement == pytest.approx(float((decisions[0] == decisions[1]).double().mean()))


def test_the_published_estimator_moves_each_batch_of_256_by_one_pair() -> None:
    x, model = images(600, 8), Classifier(8)
    found = shift.legacy_consistency(model, x, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    agree = 0
    for start in (0, 256, 512):
        pair = torch.randint(-3, 3, (2, 2), generator=generator).tolist()
        decisions = [predictions(model(torch.roll(x[start : start + 256], s, dims=(-2, -1)))) for s in pair]
        agree += sum(a == b for a, b in zip(decisions[0].tolist(), decisions[1].tolist(), strict=True))
    assert found == pytest.approx(agree / 600)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_steps_against_a_loop(wrap: bool, outputs: int) -> None:
    logits = torch.randn(4, 3, 5, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flips, changes = [], []
    for y, x, n in itertools.product(range(4), range(3), range(5)):
        for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            ny, nx = y + dy, x + dx
            if wrap:
                ny, nx = ny % 4, nx % 3
            elif not (0 <= ny < 4 and 0 <= nx < 3):
                continue
            here, there = logits[y, x, n], logits[ny, nx, n]
            if outputs == 1:
                p, q = torch.sigmoid(here[0]), torch.sigmoid(there[0])
                chosen = p > 0.5
                flips.append(float(chosen != (q > 0.5)))
                changes.append(float((p - q).abs()))
            else:
                p, q = here.softmax(0), there.softmax(0)
                flips.append(float(p.argmax() != q.argmax()))
                changes.append(float((p - q)[p.argmax()].abs()))
    found = shift.step_changes(logits, wrap)
    assert found.flip_rate == pytest.approx(sum(flips) / len(flips))
    assert found.mean_absolute_change == pytest.approx(sum(changes) / len(changes))


def test_averages_over_phases_against_the_mean_of_shifted_passes() -> None:
    model, x = Classifier(12), images(7, 12)
    logits = shift.shifted_logits(model, x, range(-1, 3), range(-1, 3))
    found = shift.average_phases(logits, total_stride=2)
    assert found.shape == (3, 3, 7, 10)
    for (row, dy), (column, dx) in itertools.product(enumerate((-1, 0, 1)), enumerate((-1, 0, 1))):
        expected = sum(
            model(torch.roll(x, (dy + a, dx + b), dims=(-2, -1))) for a, b in itertools.product((0, 1), (0, 1))
        )
        torch.testing.assert_close(found[row, column], expected.detach() / 4)


def test_averages_over_all_phases_of_a_periodic_network_do_not_move() -> None:
    model, x = shape_net(2, "circular"), images(6, 16)
    logits = shift.shifted_logits(model, x, range(7), range(7))
    averaged = shift.average_phases(logits, total_stride=4)
    torch.testing.assert_close(averaged, averaged[:1, :1].expand_as(averaged))
    assert float((logits - logits[:1, :1]).abs().max()) > 1e-6


def test_bfloat16_evaluates_under_autocast_and_answers_in_float32() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    x = images(9, 8).float()
    with torch.no_grad():
        found, full = shift.BFloat16(model)(x), model(x)
    assert found.dtype == torch.float32
    assert 0 < float((found - full).abs().max()) < 0.05
    assert torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize(("pool", "consistent"), [("aps", True), ("max", False)])
def test_adaptive_polyphase_sampling_is_exactly_consistent_trained_or_not(pool: str, consistent: bool) -> None:
    torch.manual_seed(0)
    model = create_model("resnet20", (3, 32, 32), 10, pool, "avg", "circular", width=4).eval()
    x = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    logits = shift.shifted_logits(model, x, range(4), range(4))
    spread = float((logits - logits[:1, :1]).abs().max())
    assert (spread <= 3e-6 * max(1.0, float(logits.abs().max()))) is consistent


def test_means_over_images_are_those_of_the_summary() -> None:
    generator = torch.Generator().manual_seed(4)
    decisions, labels = torch.randint(0, 4, (9, 30), generator=generator), torch.randint(0, 6, (30,))
    found, whole = shift.per_image(decisions, labels), shift.consistency_of(decisions, labels)
    for i in range(30):
        votes = decisions[:, i].tolist()
        assert float(found.consistency[i]) == pytest.approx(sum((votes.count(c) / 9) ** 2 for c in range(4)))
        assert float(found.mean_correct[i]) == pytest.approx(votes.count(int(labels[i])) / 9)
        assert float(found.worst[i]) == float(all(vote == int(labels[i]) for vote in votes))
    assert whole.consistency == pytest.approx(float(found.consistency.mean()))
    assert whole.mean_accuracy == pytest.approx(float(found.mean_correct.mean()))
    assert whole.worst_accuracy == pytest.approx(float(found.worst.mean()))


def test_more_draws_estimate_the_same_consistency_with_less_scatter() -> None:
    model, x = Classifier(12), images(300, 12)
    every = shift.consistency_of(
        predictions(shift.shifted_logits(model, x, range(-3, 3), range(-3, 3))).flatten(0, 1),
        torch.zeros(300, dtype=torch.int64),
    ).consistency
    errors = {}
    for draws in (2, 6):
        found = [
            shift.sampled_consistency(model, x, 3, torch.Generator().manual_seed(seed), "circular", draws)
            for seed in range(20)
        ]
        errors[draws] = torch.tensor([mean for mean, _ in found]) - every
        assert abs(float(errors[draws].mean())) < 0.01
    assert float(errors[6].std()) < float(errors[2].std())
