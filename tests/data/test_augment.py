"""Random augmentation: which draws are made, and that they depend on the generator alone."""

from __future__ import annotations

import pytest
import torch

from poolbench.core import AUGMENTATIONS, TrainConfig, UsageError
from poolbench.data.augment import SHIFT, augment, draw_augmentations


def changed(images: torch.Tensor, kinds: list[str], seed: int) -> torch.Tensor:
    return augment(images, draw_augmentations(kinds, len(images), torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_every_kind_changes_images_and_equal_seeds_change_them_equally(kind: str) -> None:
    images = torch.rand(16, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    first, second, other = (changed(images, [kind], seed) for seed in (1, 1, 2))
    assert first.shape == images.shape
    assert torch.equal(first, second)
    assert not torch.equal(first, images)
    assert not torch.equal(first, other)
    assert torch.equal(changed(images, [], 0), images)


def test_shifts_reach_as_far_as_stated_and_no_farther() -> None:
    dot = torch.zeros(2000, 1, 21, 21)
    dot[:, :, 10, 10] = 1
    moved = changed(dot, ["shift"], 0)
    assert moved.flatten(1).sum(dim=1).eq(1).all()
    where = moved.nonzero()[:, 2:] - 10
    assert {tuple(place) for place in where.tolist()} == {
        (y, x) for y in range(-SHIFT, SHIFT + 1) for x in range(-SHIFT, SHIFT + 1)
    }


def test_flips_mirror_about_half_of_the_images() -> None:
    images = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    flipped = changed(images, ["flip"], 0)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(dim=1)
    assert torch.equal(flipped[~mirrored], images[~mirrored])
    assert 150 < int(mirrored.sum()) < 250


def test_an_epoch_drawn_at_once_is_augmented_like_its_batches() -> None:
    images = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    draws = draw_augmentations(["shift", "rotation", "flip"], 30, torch.Generator().manual_seed(1))
    assert list(draws) == ["flip", "rotation", "shift"]
    parts = [augment(images[i : i + 7], {k: v[i : i + 7] for k, v in draws.items()}) for i in range(0, 30, 7)]
    torch.testing.assert_close(torch.cat(parts), augment(images, draws), rtol=0, atol=0)


def test_training_knows_combinations_and_refuses_others() -> None:
    assert TrainConfig(1, augment=("shift", "flip")).augment == ("flip", "shift")
    assert TrainConfig(1).augment == ()
    with pytest.raises(UsageError, match="some of flip, rotation, shift, got"):
        TrainConfig(1, augment=("crop",))
