"""Geometric image operations on batches: rotation, shifts and masks of pixels (b, c, h, w), on the images' device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import UsageError

Fill = Literal["zeros", "reflect"]
PADDING: dict[Fill, str] = {"zeros": "zeros", "reflect": "reflection"}
"""Fill -> padding mode of ``torch.nn.functional.grid_sample``."""

Boundary = Literal["circular", "crop", "canvas"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)


def rotate(images: Tensor, degrees: Tensor, fill: Fill = "zeros") -> Tensor:
    """Rotate each image (b, c, h, w) counter-clockwise about its centre by its own angle (b,), in degrees.

    Bilinear interpolation on the grid of ``grid_sample`` with align_corners=False. Outside the image there
    are zeros ("zeros") or its mirror image ("reflect").
    """
    radians = degrees.to(images) * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    height, width = images.shape[-2:]
    # Both axes run over [-1, 1], so the aspect ratio of a non-square image enters the rotation matrix.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=PADDING[fill], align_corners=False)


def turns(images: Tensor, angles: Sequence[float], fill: Fill = "zeros") -> Tensor:
    """Rotate all images (b, c, h, w) counter-clockwise by each angle, in degrees: (angles, b, c, h, w).

    Multiples of 90 degrees are exact permutations of the pixels (only multiples of 180 if h != w). All
    other angles are interpolated and filled as in :func:`rotate`.
    """
    rotated = images.new_empty(len(angles), *images.shape)
    square = images.shape[-2] == images.shape[-1]
    interpolated = []
    for index, angle in enumerate(angles):
        quarters, remainder = divmod(angle, 90)
        if remainder == 0 and (square or quarters % 2 == 0):
            rotated[index] = torch.rot90(images, int(quarters) % 4, dims=(-2, -1))
        else:
            interpolated.append(index)
    if interpolated:
        # Images become channels, so that the sampling grid is computed once per angle.
        stacked = images.flatten(0, 1)[None].expand(len(interpolated), -1, -1, -1)
        degrees = torch.tensor([angles[index] for index in interpolated], dtype=torch.float64)
        rotated[interpolated] = rotate(stacked, degrees, fill).unflatten(1, images.shape[:2])
    return rotated


def roll(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image (b, c, h, w) circularly by its own whole pixels (b, 2), given as dy, dx."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Channels last: one index then copies all channels of a pixel.
    return images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image (b, c, h, w) by its own whole pixels (b, 2), given as dy, dx; fill with zeros."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return roll(images, shifts) * inside[:, None]


def move(images: Tensor, shifts: Tensor, boundary: Boundary, reach: int) -> Tensor:
    """Shift each image (b, c, h, w) by its own whole pixels (b, 2), at most ``reach``, with a given boundary.

    "circular": pixels that leave re-enter on the opposite side (Zhang 2019). "crop": zeros enter, and what
    leaves is lost, as in the published protocol "pad by 3, crop back". "canvas": the image is padded with
    ``reach`` zeros on every side first, so nothing is lost; the result is (b, c, h + 2 reach, w + 2 reach),
    which not every network accepts. Raises UsageError for any other boundary.
    """
    if boundary == "circular":
        return roll(images, shifts)
    if boundary == "crop":
        return shift(images, shifts)
    if boundary == "canvas":
        return shift(F.pad(images, (reach,) * 4), shifts)
    raise UsageError(f"boundary is one of {', '.join(BOUNDARIES)}, got {boundary!r}")


def shift_subpixel(images: Tensor, dy: float, dx: float) -> Tensor:
    """Shift all images (b, c, h, w) circularly by fractions of a pixel, as band-limited signals.

    Multiplies the Fourier transform by a linear phase; for whole pixels this equals ``torch.roll``. The
    Nyquist frequency of an even size has no sign: it is scaled by the cosine of its phase (the mean of
    both signs), which keeps the result real.
    """
    height, width = images.shape[-2:]
    phases = _phases(height, dy, images)[:, None] * _phases(width, dx, images)
    shifted: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * phases).real
    return shifted


def _phases(size: int, distance: float, like: Tensor) -> Tensor:
    """Return the Fourier multipliers (size,) of a shift by ``distance`` pixels along one axis."""
    frequency = torch.fft.fftfreq(size, dtype=torch.float64, device=like.device)
    angle = -2 * torch.pi * distance * frequency
    phases = torch.polar(torch.ones_like(angle), angle)
    if size % 2 == 0:
        phases[size // 2] = torch.cos(angle[size // 2])
    return phases.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)


def disc_mask(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return booleans (h, w): True for pixels whose centre lies inside the largest inscribed circle."""
    height, width = size
    y = torch.arange(height, device=device) - (height - 1) / 2
    x = torch.arange(width, device=device) - (width - 1) / 2
    return y[:, None].square() + x[None].square() <= (min(height, width) / 2) ** 2
