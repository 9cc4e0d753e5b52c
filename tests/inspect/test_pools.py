"""Pools under a step of one pixel: loops in numpy as the oracle, and what is exact by theory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from poolbench.core import Component, UsageError
from poolbench.inspect import pools as inspected
from poolbench.inspect.filters import FILTERS, named_filter
from poolbench.inspect.pools import HALVES, OFFSETS, SHOWN, PooledMap, change, inspect_pools, weights_of, written
from poolbench.registry import pools

Array = np.ndarray[Any, np.dtype[np.float64]]
EXACT = ("aps", "aps_blur3", "lps", "max_aps", "max_aps_blur3", "max_lps")


def photograph(height: int = 56, width: int = 60) -> Tensor:
    """Blobs of many sizes in three colours (3, h, w)."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    image = np.zeros((3, height, width))
    for _ in range(60):
        y, x, radius = generator.uniform(0, height), generator.uniform(0, width), generator.uniform(1, 6)
        colour = generator.uniform(0, 1, 3)[:, None, None]
        image = np.maximum(image, colour * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / radius**2))
    return torch.from_numpy(image)


def inspected_pools(names: Sequence[str], name: str = "edges", image: Tensor | None = None) -> dict[str, PooledMap]:
    given = photograph() if image is None else image
    found = inspect_pools(given, [pools.parse(each) for each in names], named_filter(name), lambda done, total: None)
    return {one.pool: one for one in found.maps}


def activated(image: Array, weights: Array) -> Array:
    """Filter and ReLU, pixel by pixel, where the filter lies inside the image."""
    height, width = image.shape[0] - 2, image.shape[1] - 2
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            found[y, x] = max(0.0, float((image[y : y + 3, x : x + 3] * weights).sum()))
    return found


def maximum(image: Array) -> Array:
    """The largest value of each 2x2 window."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return np.array([[image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max() for x in range(width)] for y in range(height)])


def least_difference(before: Array, after: Array, margin: int) -> tuple[float, tuple[int, int]]:
    """The root mean square difference in standard deviations for the best move, cell by cell."""
    height, width = before.shape
    cells = [(y, x) for y in range(margin, height - margin) for x in range(margin, width - margin)]
    contrast = float(np.std([before[cell] for cell in cells]))
    sizes = {}
    for move in ((0, 0), (0, 1), (1, 0), (1, 1)):
        squares = [(after[y, x] - before[(y - move[0]) % height, (x - move[1]) % width]) ** 2 for y, x in cells]
        sizes[move] = math.sqrt(sum(squares) / len(squares)) / contrast
    best = min(sizes, key=lambda move: sizes[move])
    return sizes[best], best


@pytest.mark.parametrize("name", ["edges", "sobel_45", "rows_negative"])
def test_the_change_of_max_pooling_is_that_of_loops(name: str) -> None:
    image = photograph()
    brightness = np.tensordot((0.299, 0.587, 0.114), image.numpy(), 1)
    whole = activated(brightness, np.array(named_filter(name).weights))
    # Offsets reach 6 px and the step 1 px further; sides are even.
    height, width = (side - 7 - (side - 7) % 2 for side in whole.shape)
    sizes, moves = [], []
    for top, left in OFFSETS:
        # The window further up and to the left has the content further down and to the right.
        before = maximum(whole[top + 1 : top + 1 + height, left + 1 : left + 1 + width])
        after = maximum(whole[top : top + height, left : left + width])
        size, move = least_difference(before, after, margin=4)
        sizes.append(size)
        moves.append(move)
    found = inspected_pools(["max"], name)["max"]
    assert found.change.mean == pytest.approx(np.mean(sizes), rel=1e-9)
    assert (found.change.least, found.change.most) == pytest.approx((min(sizes), max(sizes)), rel=1e-9)
    assert float(found.shown.size) == pytest.approx(sizes[SHOWN], rel=1e-9)
    assert tuple(found.shown.alignment[0].tolist()) == moves[SHOWN]
    assert float(found.shown.difference.square().mean().sqrt()) == pytest.approx(sizes[SHOWN], rel=1e-9)
    assert found.change.mean > 0.2


def test_the_change_on_a_torus_is_that_of_loops() -> None:
    image = photograph()
    brightness = np.tensordot((0.299, 0.587, 0.114), image.numpy(), 1)
    height, width = (side - 7 - (side - 7) % 2 for side in brightness.shape)
    sizes = []
    for top, left in OFFSETS:
        crop = brightness[top : top + height, left : left + width]
        moved = np.roll(crop, (1, 1), (0, 1))
        maps = [activated(np.pad(each, 1, mode="wrap"), np.array(FILTERS[0].weights)) for each in (crop, moved)]
        sizes.append(least_difference(maximum(maps[0]), maximum(maps[1]), margin=0)[0])
    found = inspected_pools(["max"])["max"]
    assert found.circular.mean == pytest.approx(np.mean(sizes), rel=1e-9)
    assert float(found.shown_circular.size) == pytest.approx(sizes[SHOWN], rel=1e-9)


def test_pools_that_choose_by_content_follow_a_step_on_a_torus_exactly() -> None:
    for name, found in inspected_pools(EXACT).items():
        exact = (
            found.circular.most == 0 if name in ("aps", "max_aps", "lps", "max_lps") else found.circular.most < 1e-12
        )
        assert exact, name
        assert found.halves.most < 1e-12, name


def test_a_pool_that_keeps_all_pixels_changes_nothing() -> None:
    found = inspected_pools(["dense"])["dense"]
    assert found.change.most == found.circular.most == found.halves.most == 0
    assert tuple(found.shown.alignment[0].tolist()) == (1, 1)
    assert found.contrast == 1


def test_an_ideal_low_pass_moves_by_half_a_pixel_and_max_pooling_does_not() -> None:
    found = inspected_pools(["ideal_lowpass", "max", "decimate"])
    assert found["ideal_lowpass"].circular.least > 0.1
    assert found["ideal_lowpass"].halves.most < 1e-9
    assert found["max"].halves.least > 0.1
    assert found["decimate"].halves.least > found["max"].halves.most


def test_pools_are_ordered_by_their_change_and_more_blur_changes_less() -> None:
    names = list(inspected_pools(["decimate", "max", "max_blur3", "max_blur5"]))
    assert names == ["max_blur5", "max_blur3", "max", "decimate"]


def test_gain_and_offset_do_not_count_as_robustness() -> None:
    found = inspected_pools(["avg", "dwt"])
    assert found["dwt"].change.mean == pytest.approx(found["avg"].change.mean, rel=1e-9)
    assert found["dwt"].contrast == pytest.approx(2 * found["avg"].contrast, rel=1e-9)
    before, after = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(change(before, after).size, change(5 * before + 3, 5 * after + 3).size)


def test_a_map_that_only_moved_has_not_changed_and_unrelated_ones_have_nothing_in_common() -> None:
    maps = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for move in ((0, 0), (0, 1), (1, 0), (1, 1)):
        found = change(maps, maps.roll(move, (1, 2)))
        assert found.size.tolist() == [0, 0, 0]
        assert found.alignment.tolist() == [list(move)] * 3
    assert change(maps, maps.roll(20, 0).roll((20, 20), (1, 2)), moves=HALVES).size.tolist() == pytest.approx(
        [2**0.5] * 3, rel=0.1
    )


def test_a_constant_map_has_no_number() -> None:
    constant = torch.full((1, 8, 8), 0.3, dtype=torch.float64)
    assert change(constant, constant).size.isnan().all()


def test_every_pool_works_and_says_what_its_weights_are() -> None:
    found = inspected_pools(pools.names())
    assert set(found) == set(pools.names())
    for name, one in found.items():
        assert one.before.isfinite().all(), name
        assert one.before.shape == one.after.shape == ((46, 50) if name == "dense" else (23, 25))
        assert bool(one.weights) == pools.facts(name)["learnable"], name
    assert {name for name, one in found.items() if one.weights == "initial"} == {"gem_local", "mixed"}


def test_the_default_leaves_out_pools_with_random_weights() -> None:
    chosen = {pool.name for pool in inspected.default_pools()}
    assert {name for name in pools.names() if weights_of(pools.resolve(name)) == "random"} == {*pools.names()} - chosen
    assert "strided_conv" not in chosen
    assert {"max", "max_blur3", "aps", "gem_local"} <= chosen


def test_random_weights_do_not_disturb_the_random_numbers_of_the_caller() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = inspected.initial_pool(pools.resolve("strided_conv"))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.weight, inspected.initial_pool(pools.resolve("strided_conv")).weight)


def test_pools_are_written_with_the_options_that_differ() -> None:
    assert written(pools.parse("max")) == "max"
    assert written(pools.parse("gem_local:p=4")) == "gem_local:p=4.0"
    assert written(Component("gem_local", pools.resolve("gem_local").options)) == "gem_local"


def test_a_photograph_without_content_is_refused() -> None:
    with pytest.raises(UsageError, match="filter 'edges' finds nothing in this photograph"):
        inspected_pools(["max"], image=torch.full((3, 60, 60), 0.5))
