"""Rotations and shifts against loops, against each other, and against sampled sinusoids."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from poolbench.core import UsageError
from poolbench.geometry import BOUNDARIES, disc_mask, move, rotate, shift, shift_subpixel, turns


def images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, height, width, dtype=torch.float64, generator=generator)


def disc_images(count: int, size: int) -> Tensor:
    """Random images (count, 1, size, size) inside the disc."""
    x = torch.rand(count, 1, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return x * disc_mask((size, size))


@pytest.mark.parametrize("size", [8, 9])
def test_quarter_turns_are_exact_and_counter_clockwise(size: int) -> None:
    x = disc_images(3, size)
    for quarter in range(-4, 5):
        expected = torch.from_numpy(np.rot90(x.numpy(), quarter, axes=(-2, -1)).copy())
        assert torch.equal(turns(x, [90.0 * quarter])[0], expected)
        interpolated = rotate(x, torch.full((3,), 90.0 * quarter))
        torch.testing.assert_close(interpolated, expected, rtol=0, atol=1e-9)


def test_interpolation_against_a_double_loop() -> None:
    x = disc_images(1, 7)
    angle = 33.0
    found = turns(x, [angle])[0][0, 0]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    for i in range(7):
        for j in range(7):
            # The source of the output pixel: rotated clockwise about the centre (rows run down).
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


def test_each_image_is_rotated_by_its_own_angle() -> None:
    x = disc_images(3, 9)
    angles = torch.tensor([0.0, 45.0, -120.0])
    found = rotate(x, angles)
    for i, angle in enumerate(angles.tolist()):
        torch.testing.assert_close(found[i : i + 1], rotate(x[i : i + 1], torch.tensor([angle])))


def test_rotation_of_a_non_square_image_keeps_distances() -> None:
    x = torch.zeros(1, 1, 21, 31, dtype=torch.float64)
    x[0, 0, 10, 25] = 1  # 10 px right of the centre
    rotated = turns(x, [90.0])[0]
    assert int(rotated[0, 0].argmax()) == 0 * 31 + 15  # 10 px above it


def test_the_disc_is_the_inscribed_circle() -> None:
    mask = disc_mask((28, 28))
    assert mask.float().mean() == pytest.approx(np.pi / 4, abs=0.01)
    assert torch.equal(mask, torch.rot90(mask))
    assert not mask[0, 0]
    assert mask[0, 13]


def test_rotation_by_many_angles_equals_rotation_by_each() -> None:
    for x in (disc_images(3, 8), torch.rand(2, 3, 6, 9, dtype=torch.float64)):
        angles = [0.0, 33.0, 90.0, 180.0, 271.5]
        for angle, found in zip(angles, turns(x, angles), strict=True):
            assert torch.equal(found, turns(x, [angle])[0])
    x = torch.ones(1, 1, 9, 9, dtype=torch.float64)
    assert turns(x, [45.0])[0][0, 0, 0, 0] == 0
    torch.testing.assert_close(turns(x, [45.0], fill="reflect")[0], x)


def test_shift_moves_each_image_by_its_own_pixels_and_fills_with_zeros() -> None:
    images = torch.rand(7, 2, 6, 5, generator=torch.Generator().manual_seed(0))
    shifts = torch.tensor([[0, 0], [1, 0], [-2, 3], [5, -4], [6, 0], [0, -5], [-7, 9]])
    expected = torch.zeros_like(images)
    for n, (dy, dx) in enumerate(shifts.tolist()):
        for y in range(6):
            for x in range(5):
                if 0 <= y - dy < 6 and 0 <= x - dx < 5:
                    expected[n, :, y, x] = images[n, :, y - dy, x - dx]
    assert torch.equal(shift(images, shifts), expected)


SHIFTS = torch.tensor([[0, 0], [3, -2], [-3, 3], [1, 0]])


def test_circular_moves_are_rolls() -> None:
    x = images(4, 7, 6)
    moved = move(x, SHIFTS, "circular", reach=3)
    for image, own, pixels in zip(x, moved, SHIFTS.tolist(), strict=True):
        assert torch.equal(own, torch.roll(image, pixels, dims=(-2, -1)))


def test_crop_moves_are_padded_and_cut() -> None:
    x = images(4, 7, 6)
    moved = move(x, SHIFTS, "crop", reach=3)
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3))
    for n, (dy, dx) in enumerate(SHIFTS.tolist()):
        assert torch.equal(moved[n], padded[n, :, 3 - dy : 10 - dy, 3 - dx : 9 - dx])


def test_a_canvas_keeps_the_whole_image() -> None:
    x = images(4, 7, 6)
    moved = move(x, SHIFTS, "canvas", reach=3)
    assert moved.shape == (4, 2, 13, 12)
    for n, (dy, dx) in enumerate(SHIFTS.tolist()):
        assert torch.equal(moved[n, :, 3 + dy : 10 + dy, 3 + dx : 9 + dx], x[n])
        assert float(moved[n].sum()) == pytest.approx(float(x[n].sum()))


def test_unknown_boundaries_are_refused() -> None:
    with pytest.raises(UsageError, match=", ".join(BOUNDARIES)):
        move(images(1, 4, 4), torch.zeros(1, 2, dtype=torch.int64), "mirror", reach=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 7)])
def test_whole_pixels_of_a_subpixel_shift_are_rolls(size: tuple[int, int]) -> None:
    x = images(2, *size)
    for dy, dx in ((0, 0), (1, 0), (-3, 2), (5, -8)):
        assert torch.allclose(shift_subpixel(x, dy, dx), torch.roll(x, (dy, dx), dims=(-2, -1)), atol=1e-12)


def test_half_a_pixel_samples_the_band_limited_signal_between_the_pixels() -> None:
    y, x = torch.meshgrid(torch.arange(12).double(), torch.arange(10).double(), indexing="ij")

    def wave(dy: float, dx: float) -> Tensor:
        rows, columns = 2 * math.pi * (y - dy) / 12, 2 * math.pi * (x - dx) / 10
        signal: Tensor = 0.3 + torch.sin(2 * rows + 1) * torch.cos(3 * columns) + torch.cos(5 * rows - columns)
        return signal[None, None]

    for dy, dx in ((0.5, 0.0), (-0.25, 1.5), (2.5, -0.7)):
        assert torch.allclose(shift_subpixel(wave(0, 0), dy, dx), wave(dy, dx), atol=1e-12)


def test_two_half_pixels_are_one_pixel_but_for_the_nyquist_frequency() -> None:
    odd, even = images(1, 7, 9), images(1, 8, 8)
    there = shift_subpixel(shift_subpixel(odd, 0.5, 0.5), 0.5, 0.5)
    assert torch.allclose(there, torch.roll(odd, (1, 1), dims=(-2, -1)), atol=1e-12)
    # A checkerboard lies at the Nyquist frequency: between its pixels it is zero everywhere.
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert shift_subpixel(board[None, None].double(), 0.5, 0.0).abs().max() < 1e-12
    assert shift_subpixel(even.float(), 0.3, 0.1).dtype == torch.float32
