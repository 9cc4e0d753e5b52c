"""Ways to move an image by pixels, each with what it does at the border."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import UsageError
from poolbench.data.augment import roll, shift

Boundary = Literal["circular", "crop", "canvas"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)


def move(images: Tensor, shifts: Tensor, boundary: Boundary, reach: int) -> Tensor:
    """Move each image (n, c, h, w) by its own shift (n, 2) as dy, dx, at most ``reach`` pixels.

    ``"circular"``: what leaves comes in opposite, with a seam (Zhang 2019). ``"crop"``: zeros come in and
    what leaves is lost, the published "pad by 3, crop back". ``"canvas"``: the image lies on a canvas of
    zeros that is larger by ``reach`` on every side, so nothing is lost and the result is (n, c, h + 2 reach,
    w + 2 reach), which not every network takes. Raises UsageError for another boundary.
    """
    if boundary == "circular":
        return roll(images, shifts)
    if boundary == "crop":
        return shift(images, shifts)
    if boundary == "canvas":
        return shift(F.pad(images, (reach,) * 4), shifts)
    raise UsageError(f"boundary is one of {', '.join(BOUNDARIES)}, got {boundary!r}")


def shift_subpixel(images: Tensor, dy: float, dx: float) -> Tensor:
    """Shift images (n, c, h, w) circularly by fractions of a pixel, as band-limited signals.

    Phases of the Fourier transform; whole pixels equal ``torch.roll``. The Nyquist frequency of an even
    size has no sign, so its amplitude follows the cosine (both signs shared equally) and the result is real.
    """
    height, width = images.shape[-2:]
    phases = _phases(height, dy, images)[:, None] * _phases(width, dx, images)
    shifted: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * phases).real
    return shifted


def _phases(size: int, distance: float, like: Tensor) -> Tensor:
    frequency = torch.fft.fftfreq(size, dtype=torch.float64, device=like.device)
    angle = -2 * torch.pi * distance * frequency
    phases = torch.polar(torch.ones_like(angle), angle)
    if size % 2 == 0:
        phases[size // 2] = torch.cos(angle[size // 2])
    return phases.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)
