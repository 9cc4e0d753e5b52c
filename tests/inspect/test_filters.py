"""The bank: weights that sum to zero, opposites, and Sobel filters that respond to their direction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from poolbench.core import UsageError
from poolbench.inspect.filters import FILTERS, SHOWN, named_filter


def test_the_bank_has_distinct_names_and_weights_that_sum_to_zero() -> None:
    assert len({one.name for one in FILTERS}) == len({one.weights for one in FILTERS}) == len(FILTERS)
    assert all(np.sum(one.weights) == 0 for one in FILTERS)
    assert {one.name for one in FILTERS} >= set(SHOWN)


@pytest.mark.parametrize("name", ["edges", "rows", "columns"])
def test_the_negative_of_a_filter_has_the_opposite_weights(name: str) -> None:
    weights, negative = (np.array(named_filter(each).weights) for each in (name, f"{name}_negative"))
    assert np.array_equal(weights, -negative)


def test_columns_are_rows_transposed() -> None:
    assert np.array_equal(np.array(named_filter("rows").weights).T, named_filter("columns").weights)


@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_a_sobel_filter_responds_most_to_brightness_that_increases_in_its_direction(angle: int) -> None:
    weights = np.array(named_filter(f"sobel_{angle}").weights)
    # Rows point down, angles counter-clockwise.
    rows, columns = np.mgrid[-1:2, -1:2]
    responses = {
        direction: float(
            (weights * (columns * math.cos(math.radians(direction)) - rows * math.sin(math.radians(direction)))).sum()
        )
        for direction in range(0, 360, 15)
    }
    assert max(responses, key=lambda direction: responses[direction]) == angle


def test_an_unknown_filter_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"unknown filter 'sobel_30'; did you mean 'sobel_\d+'\? \(there are: columns, "
    ):
        named_filter("sobel_30")
