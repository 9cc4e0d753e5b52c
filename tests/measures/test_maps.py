"""Maps in numbers: planted units, numpy by another route, and pictures whose noise is known."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from poolbench.measures.maps import (
    LEVELS,
    class_separation,
    dead_units,
    duplicate_units,
    effective_rank,
    spatial_entropy,
)


def random_maps(n: int = 20, c: int = 4, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, c, side, side, generator=torch.Generator().manual_seed(seed))


def test_units_with_one_value_everywhere_are_dead() -> None:
    maps = random_maps()
    maps[:, 1] = 0.0
    maps[:, 2] = 3.5
    maps[:, 3] = 0.0
    maps[7, 3, 2, 5] = 0.1  # alive at a single position of one image
    assert dead_units(maps).tolist() == [False, True, True, False]


def test_units_that_copy_an_earlier_one_are_duplicates() -> None:
    maps = torch.cat([random_maps(c=3), torch.zeros(20, 1, 8, 8)], 1)
    maps = torch.cat([maps, 2 * maps[:, :1] + 1, -maps[:, 1:2], maps[:, 2:3] + 0.5 * random_maps(c=1, seed=9)], 1)
    # 0.5 of independent noise leaves a correlation of 1 / sqrt(1.25) = 0.894.
    assert duplicate_units(maps).tolist() == [False, False, False, False, True, True, False]
    assert duplicate_units(maps, threshold=0.85).tolist() == [False, False, False, False, True, True, True]


def test_effective_rank_is_that_of_the_singular_values() -> None:
    maps = random_maps(c=5)
    maps[:, 4] = 0.3 * maps[:, 0] - 2 * maps[:, 1] + 7
    matrix = maps.transpose(0, 1).flatten(1).double().numpy()
    singular = np.linalg.svd(matrix - matrix.mean(1, keepdims=True), compute_uv=False)
    shares = singular / singular.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares if p > 1e-12))
    assert effective_rank(maps) == pytest.approx(expected, rel=1e-6)
    assert effective_rank(maps) < 4


@pytest.mark.parametrize("c", [1, 3])
def test_effective_rank_of_copies_is_one_and_of_dead_units_zero(c: int) -> None:
    one = random_maps(c=1)
    assert effective_rank(one.repeat(1, c, 1, 1)) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(torch.ones(5, c, 4, 4)) == 0.0


def test_effective_rank_of_equally_strong_units_is_their_number() -> None:
    assert effective_rank(random_maps(n=500, c=6)) == pytest.approx(6, rel=0.01)


@pytest.mark.parametrize("side", [2, 4, 16])
def test_white_noise_has_an_entropy_of_one_at_every_size(side: int) -> None:
    maps = torch.rand(400, 3, side, side, generator=torch.Generator().manual_seed(1))
    assert spatial_entropy(maps) == pytest.approx(np.ones(3), abs=0.02)


def test_smooth_pictures_have_less_entropy_than_noisy_ones() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    phases = torch.rand(30, 1, 1, generator=torch.Generator().manual_seed(2)) * 2 * math.pi
    slow, fast = (torch.sin((x + 2 * y) * k + phases) for k in (0.08, 0.4))
    noise = torch.rand(30, 32, 32, generator=torch.Generator().manual_seed(3))
    halves = (x > 15).float().expand(30, 32, 32)
    found = spatial_entropy(torch.stack([halves, slow, fast, 0.5 * slow + noise, noise], 1)).tolist()
    assert found == sorted(found)
    assert found[0] < 0.25
    assert found[2] < 0.9 < found[4]


def test_spatial_entropy_counts_pairs_of_neighbours() -> None:
    maps = random_maps(n=3, c=2, side=5, seed=4)
    generator = torch.Generator().manual_seed(0)
    order = torch.rand(3, 2, 25, generator=generator).argsort(2)
    shuffled = maps.flatten(2).gather(2, order).view_as(maps)
    for unit in range(2):
        expected = _entropy_by_hand(maps[:, unit]) / _entropy_by_hand(shuffled[:, unit])
        assert float(spatial_entropy(maps)[unit]) == pytest.approx(expected, rel=1e-9)


def _entropy_by_hand(maps: Tensor) -> float:
    """Return the entropy of a level given its neighbour's, by counting the pairs of maps (n, h, w)."""
    pairs: Counter[tuple[int, int]] = Counter()
    for image in maps.double().tolist():
        low, high = min(map(min, image)), max(map(max, image))
        levels = [[min(LEVELS - 1, int((value - low) / (high - low) * LEVELS)) for value in row] for row in image]
        for y, row in enumerate(levels):
            for x, level in enumerate(row):
                others = [row[x + 1]] if x + 1 < len(row) else []
                others += [levels[y + 1][x]] if y + 1 < len(levels) else []
                for other in others:
                    pairs[level, other] += 1
                    pairs[other, level] += 1
    total = sum(pairs.values())
    firsts: Counter[int] = Counter()
    for (first, _), count in pairs.items():
        firsts[first] += count
    return -sum(count / total * math.log(count / firsts[first]) for (first, _), count in pairs.items())


def test_maps_without_contrast_or_neighbours_have_no_entropy() -> None:
    maps = random_maps(c=2)
    maps[:, 1] = 4.0
    found = spatial_entropy(maps)
    assert torch.isfinite(found).tolist() == [True, False]
    assert torch.isnan(spatial_entropy(random_maps(side=1))).all()


def test_maps_without_contrast_do_not_count_beside_others() -> None:
    maps = random_maps(n=10, c=1)
    blank = torch.cat([maps, torch.full((30, 1, 8, 8), 2.0)])
    order = "the random order differs, the entropy hardly"
    assert spatial_entropy(blank) == pytest.approx(spatial_entropy(maps), abs=0.02), order


def test_class_separation_is_the_share_of_variance_between_classes() -> None:
    labels = torch.arange(30) % 3
    maps = random_maps(n=30, c=3)
    maps[:, 0] = labels[:, None, None].float()
    maps[:, 1] = 0.0
    found = class_separation(maps, labels).tolist()
    means = maps[:, 2].mean((1, 2)).double().numpy()
    within = sum(((means[labels == k] - means[labels == k].mean()) ** 2).sum() for k in range(3))
    assert found[0] == pytest.approx(1.0)
    assert math.isnan(found[1])
    assert found[2] == pytest.approx(1 - within / ((means - means.mean()) ** 2).sum())
