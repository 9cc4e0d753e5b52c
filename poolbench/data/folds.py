"""Stratified k-fold cross-validation, repeated as often as seeds are added."""

from __future__ import annotations

from dataclasses import replace

import torch

from poolbench.core import UsageError, derive_seed
from poolbench.data.dataset import Dataset, Split


def fold(data: Dataset, folds: int, seed: int) -> Dataset:
    """Return the data set with one of ``folds`` parts of all its stored images as test split, the others to train.

    Seeds 0 to folds - 1 are the parts of one random partition, so that each image is tested once; the next ``folds``
    seeds are those of the next partition. Parts hold equal numbers of each class, to one image. Compared cells of a
    seed share the part. Raises UsageError for data that are drawn anew every epoch, and for a class with fewer images
    than folds.
    """
    if not isinstance(data.train, Split):
        raise UsageError(f"data set '{data.name}' draws new images every epoch and has no folds: take a stored one")
    images = torch.cat([data.train.images, data.test.images])
    labels = torch.cat([data.train.labels, data.test.labels])
    counts = labels.bincount(minlength=len(data.classes))
    if int(counts.min()) < folds:
        scarce = data.classes[int(counts.argmin())]
        raise UsageError(
            f"class '{scarce}' of '{data.name}' has {int(counts.min())} images, fewer than the {folds} folds: add some"
        )
    partition, part = divmod(seed, folds)
    tested = _parts(labels.cpu(), folds, partition) == part
    everything, tested = Split(images, labels), tested.to(labels.device)
    return replace(data, train=everything.take(~tested), test=everything.take(tested))


def _parts(labels: torch.Tensor, folds: int, partition: int) -> torch.Tensor:
    """Return the part (n,) of every image: the images of each class, shuffled, are dealt out in turn."""
    generator = torch.Generator().manual_seed(derive_seed(partition, "folds"))
    parts = torch.empty_like(labels)
    dealt = 0
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        shuffled = members[torch.randperm(len(members), generator=generator)]
        # The next class goes on where this one ended, so that parts differ by one image in all, not by one per class.
        parts[shuffled] = (torch.arange(len(members)) + dealt) % folds
        dealt += len(members)
    return parts
