"""Batched image transformations on the device; pixels are floats (b, c, h, w)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fill = Literal["zeros", "reflect"]
PADDING: dict[Fill, str] = {"zeros": "zeros", "reflect": "reflection"}
SHIFT = 4  # pixels; the usual crop augmentation of CIFAR10 (He et al. 2016)


def rotate(images: Tensor, degrees: Tensor, fill: Fill = "zeros") -> Tensor:
    """Rotate each image (b, c, h, w) counter-clockwise about its centre by its angle (b,) in degrees.

    Bilinear; zeros outside, or the image mirrored at its border. Sampling grids are those of
    ``grid_sample`` with align_corners=False.
    """
    radians = degrees.to(images) * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    height, width = images.shape[-2:]
    # Coordinates run over [-1, 1] on both axes, so a map that is not square needs its aspect ratio.
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=PADDING[fill], align_corners=False)


def turns(images: Tensor, angles: Sequence[float], fill: Fill = "zeros") -> Tensor:
    """Rotate all images (b, c, h, w) counter-clockwise by each angle in degrees: (angles, b, c, h, w).

    Multiples of 90 degrees move pixels without interpolation (half turns alone where h and w differ), all
    others are bilinear. ``fill`` says what lies outside the image: "zeros", or "reflect" for its mirror image.
    """
    found = images.new_empty(len(angles), *images.shape)
    square = images.shape[-2] == images.shape[-1]
    between = []
    for place, angle in enumerate(angles):
        quarters, rest = divmod(angle, 90)
        if rest == 0 and (square or quarters % 2 == 0):
            found[place] = torch.rot90(images, int(quarters) % 4, dims=(-2, -1))
        else:
            between.append(place)
    if between:
        # One grid per angle: images become channels of a single one.
        stacked = images.flatten(0, 1)[None].expand(len(between), -1, -1, -1)
        degrees = torch.tensor([angles[place] for place in between], dtype=torch.float64)
        found[between] = rotate(stacked, degrees, fill).unflatten(1, images.shape[:2])
    return found


def rotate_all(images: Tensor, degrees: float, fill: Fill = "zeros") -> Tensor:
    """Rotate all images (b, c, h, w) counter-clockwise by one angle, multiples of 90 degrees exactly."""
    return turns(images, [degrees], fill)[0]


def roll(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image (b, c, h, w) by its own whole pixels (b, 2) as dy, dx; what leaves comes in opposite."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    # Pixels before channels, so that one index picks all channels of a pixel.
    return images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def shift(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each image (b, c, h, w) by its own whole pixels (b, 2) as dy, dx; zeros come in from outside."""
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - shifts[:, :1]
    columns = torch.arange(width, device=images.device) - shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return roll(images, shifts) * inside[:, None]


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
