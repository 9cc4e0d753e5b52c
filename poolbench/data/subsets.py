"""Some classes of a larger data set, enlarged so that a network can halve its maps five times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.core import Component, DataLocation, UsageError
from poolbench.data import load_dataset
from poolbench.data.dataset import Dataset, Split, images_dataset
from poolbench.registry import datasets

SMALLEST = 8


@datasets.register("tops_sample")
def tops_sample(location: DataLocation, device: str, size: int = 64) -> Dataset:
    """1,200 T-shirts, pullovers, coats and shirts of fashion_mnist_sample, the garments that look most alike."""
    source = load_dataset(Component("fashion_mnist_sample", {"pad": 0, "normalize": "standard"}), location, device)
    return with_classes(source, "tops_sample", ("T-shirt/top", "Pullover", "Coat", "Shirt"), size)


@datasets.register("cats_dogs")
def cats_dogs(location: DataLocation, device: str, size: int = 64) -> Dataset:
    """12,000 cats and dogs of cifar10, RGB, enlarged from 32x32."""
    source = load_dataset(Component("cifar10", {"pad": 0, "normalize": "standard"}), location, device)
    return with_classes(source, "cats_dogs", ("cat", "dog"), size)


def check_size(size: int) -> None:
    """Raise UsageError for images of fewer than 8 px a side."""
    if size < SMALLEST:
        raise UsageError(f"size is at least {SMALLEST} px, got {size}")


def with_classes(data: Dataset, name: str, classes: Sequence[str], size: int) -> Dataset:
    """Return a stored data set of the named classes, in this order, resized to ``size`` px a side (bilinear).

    Raises UsageError for a size below 8 px.
    """
    check_size(size)
    assert isinstance(data.train, Split)
    number = {data.classes.index(label): index for index, label in enumerate(classes)}
    train, test = (_chosen(split, number, size) for split in (data.train, data.test))
    return images_dataset(name, tuple(classes), train, test, data.source)


def _chosen(split: Split, number: dict[int, int], size: int) -> Split:
    """Return the images whose labels are keys of ``number``, with its values as labels."""
    kept = torch.isin(split.labels, torch.tensor(list(number), device=split.labels.device))
    labels = torch.zeros_like(split.labels)
    for old, new in number.items():
        labels[split.labels == old] = new
    return Split(_resized(split.images[kept], size), labels[kept])


def _resized(images: Tensor, size: int) -> Tensor:
    """Return uint8 images (n, c, h, w) at ``size`` px a side."""
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8)
