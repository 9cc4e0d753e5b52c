"""Shifts against brute force, and on networks whose answer to shifts is known."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from poolbench.analysis.statistics import Interval
from poolbench.own_model import shifts
from poolbench.own_model.passes import Passes
from poolbench.own_model.shifts import DIAGONAL, STEPS, STRAIGHT

SIZE, LARGE = 8, 11
PassesOf = Callable[..., Passes]


class Brightness(nn.Module):
    """Two classes by the mean of all pixels, summed exactly: invariant to circular shifts."""

    def forward(self, x: Tensor) -> Tensor:
        total = (x * 255).round().long().sum(dim=(1, 2, 3)).double() / x[0].numel() / 255 - 0.5
        return torch.stack([-total, total], dim=1)


class Parity(nn.Module):
    """Two classes by the brighter columns, the even or the odd ones."""

    def forward(self, x: Tensor) -> Tensor:
        even = (x[:, 0, :, ::2] - x[:, 0, :, 1::2]).mean(dim=(1, 2))
        return torch.stack([even, -even], dim=1)


class Strided(nn.Module):
    """A convolution with stride 2, a pool, a mean over space: three classes, each as likely on random pixels."""

    def __init__(self, padding_mode: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, stride=2, padding=1, padding_mode=padding_mode)
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(6, 3)
        with torch.no_grad():
            self.classify.bias -= self(torch.rand(200, 3, SIZE, SIZE)).mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.pool(self.conv(x).relu()).mean(dim=(2, 3)))
        return logits


def stripes(count: int, side: int) -> Tensor:
    """Return vertical stripes of one pixel (count, 3, side, side), uint8."""
    return (torch.arange(side) % 2 * 255).to(torch.uint8).expand(count, 3, side, side).contiguous()


def crop(larger: Tensor, top: int, left: int) -> Tensor:
    return larger[:, :, top : top + SIZE, left : left + SIZE].float() / 255


def test_exact_consistency_and_its_parts_by_brute_force(passes_of: PassesOf, noise: Callable[..., Tensor]) -> None:
    network, larger, labels = Strided("zeros").eval(), noise(7, LARGE), torch.arange(7) % 3
    found, each = shifts.exact_window(passes_of(network, larger, SIZE), labels)
    side = LARGE - SIZE + 1
    with torch.no_grad():
        grid = torch.stack([
            torch.stack([network(crop(larger, y, x)).argmax(dim=1) for x in range(side)]) for y in range(side)
        ])  # fmt: skip
    flat = grid.flatten(0, 1)
    assert len(set(flat.flatten().tolist())) > 1
    agree = [(flat[i] == flat[j]).double() for i, j in product(range(side**2), repeat=2)]
    torch.testing.assert_close(each, torch.stack(agree).mean(dim=0))
    assert found.consistency.mean == pytest.approx(float(each.mean()))
    assert found.positions == side**2
    assert found.mean_accuracy is not None
    assert found.mean_accuracy.mean == pytest.approx(float((flat == labels).double().mean()))
    assert found.worst is not None
    assert found.worst.mean == pytest.approx(float((flat == labels).all(dim=0).double().mean()))
    steps = [(grid[1:] != grid[:-1]).double().flatten(), (grid[:, 1:] != grid[:, :-1]).double().flatten()]
    assert found.flips is not None
    assert found.flips.mean == pytest.approx(float(torch.cat(steps).mean()))
    centre = grid[(side - 1) // 2, (side - 1) // 2]
    torch.testing.assert_close(torch.tensor(found.agreement).double(), (grid == centre).double().mean(dim=2))


def test_steps_by_brute_force(passes_of: PassesOf, noise: Callable[..., Tensor]) -> None:
    network, larger, labels = Strided("zeros").eval(), noise(7, LARGE), torch.arange(7) % 3
    answers = passes_of(network, larger, SIZE).answers(shifts.windows(SIZE))
    top = (LARGE - SIZE) // 2
    with torch.no_grad():
        here = network(crop(larger, top, top)).double().softmax(dim=1)
        there = torch.stack([network(crop(larger, top + y, top + x)).double().softmax(dim=1) for y, x in STEPS])
    decided = here.argmax(dim=1)
    flips = (there.argmax(dim=2) != decided).double()
    change = (there[:, range(7), decided] - here[range(7), decided]).abs()
    every, straight, diagonal = shifts.step_summaries(answers, labels)
    assert 0 < every.flips.mean < 1
    assert every.flips.mean == pytest.approx(float(flips.mean()))
    assert every.flipped.mean == pytest.approx(float(flips.amax(dim=0).mean()))
    assert every.change.mean == pytest.approx(float(change.mean()), rel=1e-5)
    assert straight.flips.mean == pytest.approx(float(flips[list(STRAIGHT)].mean()))
    assert diagonal.flips.mean == pytest.approx(float(flips[list(DIAGONAL)].mean()))
    right = torch.cat([decided[None], there.argmax(dim=2)]) == labels
    assert every.worst is not None
    assert every.worst.mean == pytest.approx(float(right.all(dim=0).double().mean()))
    assert all(0 in STEPS[index] for index in STRAIGHT)
    assert not any(0 in STEPS[index] for index in DIAGONAL)


def test_the_mean_of_pixels_is_invariant_to_circular_shifts_only(
    passes_of: PassesOf, noise: Callable[..., Tensor]
) -> None:
    # Of two images at the border between the classes, one gets darker when zeros enter.
    passes = passes_of(Brightness(), noise(40, LARGE), SIZE)
    found = {name: shifts.summary(name, name, answers, None) for name, answers in shifts.compared(passes, []).items()}
    assert set(found) == {"circular", "zeros", "half_pixel"}
    assert found["circular"].flips.mean == 0
    assert found["circular"].change.mean == 0
    assert found["zeros"].flips.mean > 0
    assert found["circular"].accuracy is None
    circular = shifts.exact_circular(passes, 1, None)
    assert circular is not None
    assert circular.consistency.mean == 1


def test_a_network_that_looks_at_parity_flips_at_every_horizontal_step(passes_of: PassesOf) -> None:
    passes = passes_of(Parity(), stripes(6, LARGE), SIZE)
    answers = passes.answers(shifts.windows(SIZE))
    for flips, (_, dx) in zip(answers.flipped, STEPS, strict=True):
        assert bool(flips.all()) == bool(flips.any()) == (dx != 0)
    assert shifts.step_summaries(answers, None)[2].flips.mean == 1
    exact, each = shifts.exact_window(passes, None)
    assert exact.consistency.mean == 0.5
    assert each.tolist() == [0.5] * 6
    assert exact.flips is not None
    assert exact.flips.mean == 0.5


@pytest.mark.parametrize(("padding_mode", "is_periodic"), [("circular", True), ("zeros", False)])
def test_exact_circular_consistency_exists_for_a_period(
    passes_of: PassesOf, noise: Callable[..., Tensor], padding_mode: str, is_periodic: bool
) -> None:
    network, larger = Strided(padding_mode).eval(), noise(6, 10)
    found = shifts.exact_circular(passes_of(network, larger, SIZE), 4, None)
    assert (found is not None) == is_periodic
    if found is not None:
        images = crop(larger, 1, 1)
        with torch.no_grad():
            all_shifts = [
                network(torch.roll(images, shift, (2, 3))).argmax(dim=1) for shift in product(range(8), repeat=2)
            ]
        pairs = [(a == b).double().mean() for a, b in product(all_shifts, repeat=2)]
        assert found.consistency.mean == pytest.approx(float(torch.stack(pairs).mean()))
        assert found.positions == 16


def test_random_pairs_estimate_the_exact_consistency(passes_of: PassesOf, noise: Callable[..., Tensor]) -> None:
    passes = passes_of(Strided("zeros"), noise(300, LARGE), SIZE)
    pairs = shifts.random_pairs(passes)
    exact, each = shifts.exact_window(passes, None)
    found = shifts.published(pairs, each, None)
    assert 0 < exact.consistency.mean < 1
    # Given the images, the estimate scatters about the exact value with the standard deviation that is reported.
    assert abs(float(pairs.mean()) - exact.consistency.mean) < 4 * found.scatter
    assert found.scatter == pytest.approx(float((each * (1 - each)).sum().sqrt() / 300))
    assert isinstance(found.agreement, Interval)


def test_rescaled_images_are_compared_image_by_image(passes_of: PassesOf, noise: Callable[..., Tensor]) -> None:
    larger = noise(12, LARGE)
    same = larger[:, :, 1 : 1 + SIZE, 1 : 1 + SIZE]
    answers = shifts.compared(passes_of(Strided("zeros"), larger, SIZE), [same, same.flip(0)])["scale"]
    assert not answers.flipped[0].any()
    assert torch.equal(answers.decisions[2], answers.decisions[0].flip(0))
