"""Ways to move an image: against loops, against each other, and against sampled sinusoids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from poolbench.core import UsageError
from poolbench.measures.shift import BOUNDARIES, move, shift_subpixel


def images(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 2, height, width, dtype=torch.float64, generator=generator)


SHIFTS = torch.tensor([[0, 0], [3, -2], [-3, 3], [1, 0]])


def test_circular_moves_are_rolls() -> None:
    x = images(4, 7, 6)
    moved = move(x, SHIFTS, "circular", reach=3)
    for image, own, shift in zip(x, moved, SHIFTS.tolist(), strict=True):
        assert torch.equal(own, torch.roll(image, shift, dims=(-2, -1)))


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


def test_other_boundaries_are_named() -> None:
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
