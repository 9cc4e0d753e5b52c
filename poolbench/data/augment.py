"""Random augmentation of training images: what is drawn (on the CPU) and how it is applied (on any device)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from poolbench.geometry import rotate, shift

SHIFT = 4  # pixels; equals the usual random crop of CIFAR-10 after padding by 4 (He et al. 2016)


def draw_augmentations(kinds: Sequence[str], count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the parameters of the named ``core.AUGMENTATIONS`` for ``count`` images: {name: (count, ...)}, on the CPU.

    "flip" (count,) booleans, "rotation" (count,) degrees in [-180, 180), "shift" (count, 2) pixels dy, dx.
    ``generator`` is a CPU generator, so that all devices train on the same draws. Draws are made in
    alphabetical order, whatever the order of ``kinds``.
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
    """Apply the draws of :func:`draw_augmentations` to images (b, c, h, w): flip, then rotate, then shift."""
    if "flip" in draws:
        images = torch.where(draws["flip"][:, None, None, None], images.flip(-1), images)
    if "rotation" in draws:
        images = rotate(images, draws["rotation"])
    if "shift" in draws:
        images = shift(images, draws["shift"])
    return images
