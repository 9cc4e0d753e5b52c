"""Folds: every image is tested once per partition, classes and folds are balanced, later seeds are new partitions."""

from __future__ import annotations

import pytest
import torch

from poolbench.core import DataLocation, UsageError
from poolbench.data import Dataset, Split, images_dataset, load_dataset
from poolbench.data.folds import fold


def numbered(counts: tuple[int, ...], tested: int = 4) -> Dataset:
    """Return a data set whose images hold their own number; the last ones are its test images."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    splits = Split(images[:-tested], labels[:-tested]), Split(images[-tested:], labels[-tested:])
    return images_dataset("numbered", tuple(map(str, range(len(counts)))), *splits, "drawn")


def numbers(split: object) -> list[int]:
    assert isinstance(split, Split)
    return sorted(split.images[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("partition", [0, 1, 7])
def test_every_image_is_tested_once_and_never_trained_on_by_then(partition: int) -> None:
    data = numbered((23, 17, 11))
    tested: list[int] = []
    for seed in range(5 * partition, 5 * partition + 5):
        found = fold(data, 5, seed)
        assert not set(numbers(found.train)) & set(numbers(found.test))
        assert sorted(numbers(found.train) + numbers(found.test)) == list(range(51))
        tested += numbers(found.test)
    assert sorted(tested) == list(range(51))


def test_folds_are_balanced_to_one_image_by_class_and_in_all() -> None:
    found = [fold(numbered((23, 17, 11)), 5, seed).test for seed in range(5)]
    assert {len(test) for test in found} <= {10, 11}
    for label, count in enumerate((23, 17, 11)):
        assert {int((test.labels == label).sum()) for test in found} <= {count // 5, count // 5 + 1}


def test_the_next_seeds_are_another_partition_and_equal_seeds_the_same() -> None:
    data = numbered((23, 17, 11))
    assert numbers(fold(data, 5, 0).test) == numbers(fold(data, 5, 0).test)
    assert numbers(fold(data, 5, 0).test) != numbers(fold(data, 5, 5).test)


def test_labels_stay_with_their_images() -> None:
    data = numbered((23, 17, 11))
    assert isinstance(data.train, Split)
    label_of = dict(zip(data.train.images[:, 0, 0, 0].tolist(), data.train.labels.tolist(), strict=True))
    found = fold(data, 3, 1).test
    for number, label in zip(found.images[:, 0, 0, 0].tolist(), found.labels.tolist(), strict=True):
        assert label_of.get(number, label) == label


def test_drawn_data_and_classes_with_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match="'shapes' draws new images every epoch and has no folds"):
        fold(load_dataset("shapes", DataLocation("absent")), 3, 0)
    with pytest.raises(UsageError, match="class '1' of 'numbered' has 4 images, fewer than the 5 folds"):
        fold(numbered((20, 4)), 5, 0)
