"""Batched image transformations on the device; pixels are floats (b, c, h, w)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 4  # pixels; the usual crop augmentation of CIFAR10 (He et al. 2016)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each image (b, c, h, w) counter-clockwise about its centre by its angle (b,) in degrees.

    Bilinear, zeros outside. Sampling grids are those of ``grid_sample`` with align_corners=False.
    """
    radians = degrees.to(images) * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    height, width = images.shape[-2:]
    # Coordinates run over [-1, 1] on both axes, so a map that is not square needs its aspect ratio.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def rotate_all(images: Tensor, degrees: float) -> Tensor:
    """Rotate all images (b, c, h, w) counter-clockwise by one angle, multiples of 90 degrees exactly."""
    quarters, rest = divmod(degrees, 90)
    if rest == 0 and (quarters % 2 == 0 or images.shape[-2] == images.shape[-1]):
        return torch.rot90(images, int(quarters) % 4, dims=(-2, -1))
    # One grid for all: images become channels of a single one.
    stacked = images.flatten(0, 1)[None]
    return rotate(stacked, torch.tensor([degrees], dtype=torch.float64)).view_as(images)


def shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image (b, c, h, w) by its own whole pixels (b, 2) as dy, dx; zeros come in from outside."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Pixels before channels, so that one index picks all channels of a pixel.
    moved = images.permute(0, 2, 3, 1)[sample, (rows % height)[:, :, None], (columns % width)[:, None, :]]
    return (moved * inside[..., None]).permute(0, 3, 1, 2)


def draw_augmentations(kinds: Sequence[str], count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return what happens to ``count`` images, by the named ``core.AUGMENTATIONS``: tensors (count, ...) on the CPU.

    ``generator`` is a CPU generator, so the draws are the same on every device. Keys are in the order of
    their names whatever the order of ``kinds``.
    """
    draws: dict[str, Tensor] = {}
    if "flip" in kinds:
        draws["flip"] = torch.rand(count, generator=generator) < 0.5
    if "rotation" in kinds:
        draws["rotation"] = torch.rand(count, generator=generator) * 360 - 180
    if "shift" in kinds:
        draws["shift"] = torch.randint(-SHIFT, SHIFT + 1, (count, 2), generator=generator)
    return draws


def augment(images: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
    """Change each image (b, c, h, w) as it was drawn for it: mirror, then rotate, then shift."""
    if "flip" in draws:
        images = torch.where(draws["flip"][:, None, None, None], images.flip(-1), images)
    if "rotation" in draws:
        images = rotate(images, draws["rotation"])
    if "shift" in draws:
        images = shift(images, draws["shift"])
    return images


def disc_mask(size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """Return (h, w) booleans: pixels whose centre lies within the largest inscribed circle."""
    height, width = size
    y = torch.arange(height, device=device) - (height - 1) / 2
    x = torch.arange(width, device=device) - (width - 1) / 2
    return y[:, None].square() + x[None].square() <= (min(height, width) / 2) ** 2
