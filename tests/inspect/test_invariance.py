"""The invariance of units: planted ones that keep their answer, that lose it, and maps that are noise."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.geometry import rotate, shift
from poolbench.inspect.invariance import STEPS, measure_invariance
from poolbench.inspect.stages import Stage
from poolbench.inspect.taps import Tap


class Planted(nn.Module):
    """Units: 0 is the image, 1 its even pixels alone, 2 is constant, 3 is dead, 4 is noise that the image seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        even = torch.zeros_like(x)
        even[..., ::2, ::2] = x[..., ::2, ::2]
        noise = torch.frac(torch.sin(1e4 * (x + 0.1 * x.roll(1, -1) + x.sum(dim=(2, 3), keepdim=True))) * 1e4).abs()
        units = torch.cat([x, even, torch.full_like(x, 0.7), torch.zeros_like(x), noise], 1)
        return self.maps(units).mean(dim=(2, 3))


STAGE = Stage(Tap("maps"), (5, 16, 16), True, True)


def dots(count: int = 6) -> Tensor:
    """Images of one bright pixel on an even place, far from the border, on black; later ones are brighter."""
    images = torch.zeros(count, 1, 16, 16)
    for index in range(count):
        images[index, 0, 6 + 2 * (index % 2), 8] = 0.5 + 0.05 * index
    return images


def test_the_unit_that_reads_even_pixels_is_the_least_invariant() -> None:
    (found,) = measure_invariance(Planted(), [STAGE], dots().split(4))
    assert (found.images, found.units) == (6, 4)
    units = {unit.unit: unit for unit in (*found.least, *found.most)}
    # Every step moves the dot to a pixel that unit 1 does not read: its answer changes by all of it.
    assert units[1].shift_mean == units[1].shift_max == 1.0
    assert units[2].largest == pytest.approx(0.0, abs=1e-5)
    assert found.most[0].unit == 2
    assert units[0].shift_mean == units[0].shift_max == 0.0
    assert 3 not in units


def test_changes_are_relative_to_the_response_over_all_images() -> None:
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    (found,) = measure_invariance(Planted(), [STAGE], images.split(2))
    unit = next(unit for unit in (*found.least, *found.most) if unit.unit == 1)
    even, changes = images[..., ::2, ::2], []
    for step in STEPS:
        there = shift(images, torch.tensor([step]).expand(5, 2))[..., ::2, ::2]
        changes.append((there.sum(dim=(1, 2, 3)) - even.sum(dim=(1, 2, 3))).abs())
    expected = torch.stack(changes).mean(0).sum() / even.sum()
    assert unit.shift_mean == pytest.approx(float(expected), rel=1e-4)


def test_the_images_that_excite_a_unit_most_come_first() -> None:
    (found,) = measure_invariance(Planted(), [STAGE], dots().split(4))
    unit = next(unit for unit in (*found.least, *found.most) if unit.unit == 0)
    assert unit.exciting == (5, 4, 3)


class OneUnit(nn.Module):
    def __init__(self, noisy: bool) -> None:
        super().__init__()
        self.maps, self.noisy = nn.Identity(), noisy

    def forward(self, x: Tensor) -> Tensor:
        values = torch.frac(torch.sin(1e4 * (x + x.mean(dim=(2, 3), keepdim=True))) * 1e4).abs() if self.noisy else x
        return self.maps(values).mean(dim=(2, 3))


@pytest.mark.parametrize("noisy", [False, True])
def test_maps_turn_with_the_image_and_noise_does_not(noisy: bool) -> None:
    images = F.avg_pool2d(torch.rand(9, 1, 36, 36, generator=torch.Generator().manual_seed(0)), 5, 1)
    (found,) = measure_invariance(OneUnit(noisy), [Stage(Tap("maps"), (1, 32, 32), True, True)], images.split(4))
    assert found.follows is not None
    assert found.other is not None
    assert abs(found.other) < 0.15
    assert abs(found.follows) < 0.15 if noisy else found.follows > 0.95


def test_the_correlation_is_that_of_all_images_and_positions_of_the_disc() -> None:
    images = torch.rand(5, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    (found,) = measure_invariance(OneUnit(False), [Stage(Tap("maps"), (1, 12, 12), True, True)], images.split(2))
    back = rotate(rotate(images, torch.full((5,), 10.0), "reflect"), torch.full((5,), -10.0), "reflect")
    row = torch.arange(12) - 5.5
    inside = row[:, None] ** 2 + row**2 <= 36
    # Each map without its own mean.
    one, two = (maps[:, 0, inside] - maps[:, 0, inside].mean(1, keepdim=True) for maps in (images, back))
    pairs = torch.stack([one.flatten(), two.flatten()])
    assert found.follows == pytest.approx(float(torch.corrcoef(pairs)[0, 1]), abs=1e-4)
    others = torch.stack([one[:-1].flatten(), two[1:].flatten()])
    assert found.other == pytest.approx(float(torch.corrcoef(others)[0, 1]), abs=1e-4)


class BrightnessAndNoise(OneUnit):
    """A unit that answers to the brightness of an image, at every position with another noise."""

    def __init__(self) -> None:
        super().__init__(False)
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = x.mean((1, 2, 3), keepdim=True)
        maps = self.maps(level + 0.1 * torch.rand(x.shape[0], 1, *x.shape[2:], generator=self.generator))
        return maps.mean((2, 3))  # type: ignore[no-any-return]


def test_noise_on_images_of_different_brightness_follows_nothing() -> None:
    brightness = torch.linspace(0, 1, 20).view(20, 1, 1, 1).expand(20, 1, 12, 12).contiguous()
    (found,) = measure_invariance(BrightnessAndNoise(), [Stage(Tap("maps"), (1, 12, 12), True, True)], [brightness])
    assert found.follows == pytest.approx(0.0, abs=0.1)


def test_one_image_has_no_other_and_dead_stages_have_no_units() -> None:
    (found,) = measure_invariance(
        OneUnit(False), [Stage(Tap("maps"), (1, 8, 8), True, True)], [torch.zeros(1, 1, 8, 8)]
    )
    assert (found.images, found.units, found.shift_max, found.follows, found.other) == (1, 0, None, None, None)
    assert found.least == found.most == ()
