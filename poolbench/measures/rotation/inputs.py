"""What goes into a network when rotation variance is measured: checked arguments, and rotated images in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.geometry import PADDING, Fill, disc_mask, turns
from poolbench.measures.rotation.layers import recorded_outputs

Mask = Literal["disc"] | None
AGGREGATIONS = ("mean", "max", "none")

# Elements of the largest layer's output per forward pass: small passes are faster on a CPU.
LARGEST_LAYER = {"cpu": 2**21, "cuda": 2**28}
MAX_IMAGES = 4096  # rotated images per forward pass


def check_inputs(
    images: Tensor, angles: Sequence[float], labels: Tensor | None, aggregation: Sequence[str], mask: Mask, fill: Fill
) -> None:
    """Raise UsageError for fewer than two images or angles, for labels of another length, and for unknown options."""
    if len(images) < 2 or len(angles) < 2:
        raise UsageError(f"a variance needs two images and two angles, got {len(images)} and {len(angles)}")
    if labels is not None and labels.shape != images.shape[:1]:
        raise UsageError(f"labels are one per image ({len(images)},), got {tuple(labels.shape)}")
    if not aggregation or not set(aggregation) <= set(AGGREGATIONS):
        raise UsageError(f"aggregation is some of {', '.join(AGGREGATIONS)}, got {', '.join(aggregation) or 'nothing'}")
    if mask not in ("disc", None):
        raise UsageError(f"mask is 'disc' or None, got {mask!r}")
    if fill not in PADDING:
        raise UsageError(f"fill is one of {', '.join(PADDING)}, got {fill!r}")


def class_members(labels: Tensor | None, count: int) -> tuple[list[int], list[Tensor]]:
    """Return the classes in labels (count,) and the indices of each class's images, on the CPU.

    Without labels: no classes, and one group of all images.
    """
    if labels is None:
        return [], [torch.arange(count)]
    labels = labels.cpu()
    classes = [int(label) for label in labels.unique()]
    return classes, [(labels == label).nonzero().flatten() for label in classes]


def images_per_pass(model: nn.Module, images: Tensor, angles: Sequence[float]) -> int:
    """Return how many images (n, c, h, w) to forward at once at all angles, from the size of the largest layer."""
    largest = 1

    def keep(layer: str, output: Tensor) -> None:
        nonlocal largest
        largest = max(largest, output[0].numel())

    with torch.no_grad(), recorded_outputs(model, keep):
        model(images[:1])
    rotated = min(MAX_IMAGES, LARGEST_LAYER.get(images.device.type, 2**21) // largest)
    return max(1, rotated // len(angles))


def rotated_images(images: Tensor, angles: Sequence[float], mask: Mask, fill: Fill) -> Tensor:
    """Rotate images (b, c, h, w) by all angles, in degrees, and mask them: (angles * b, c, h, w), angle by angle.

    The result is in channels-last memory format.
    """
    rotated = turns(images, angles, fill).flatten(0, 1)
    if mask == "disc":
        rotated = rotated * disc_mask((images.shape[-2], images.shape[-1]), images.device)
    return rotated.contiguous(memory_format=torch.channels_last)
