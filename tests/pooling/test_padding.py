"""Padding against numpy.pad, also where the map is smaller than the padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poolbench.pooling.padding import PaddingMode, cover, pad, pad_filter

NUMPY_NAMES: dict[PaddingMode, str] = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}


@pytest.mark.parametrize("mode", NUMPY_NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (3, 2), (5, 6)])
@pytest.mark.parametrize("widths", [(1, 1, 1, 1), (0, 1, 0, 2), (3, 3, 3, 3), (2, 7, 5, 0)])
def test_pad_is_that_of_numpy(mode: PaddingMode, size: tuple[int, int], widths: tuple[int, int, int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    left, right, top, bottom = widths
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode=NUMPY_NAMES[mode])  # type: ignore[call-overload]
    assert np.array_equal(pad(x, widths, mode).numpy(), expected)


@pytest.mark.parametrize(
    ("mode", "size", "rows", "columns"),
    [
        ("zeros", (5, 6), "reflect", "reflect"),
        ("zeros", (3, 3), "reflect", "reflect"),
        ("zeros", (2, 5), "edge", "reflect"),
        ("zeros", (5, 1), "reflect", "edge"),
        ("zeros", (1, 2), "edge", "edge"),
        ("circular", (2, 5), "wrap", "wrap"),
        ("replicate", (2, 5), "edge", "edge"),
    ],
)
def test_filters_reflect_where_the_network_pads_with_zeros(
    mode: PaddingMode, size: tuple[int, int], rows: str, columns: str
) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (0, 0)), mode=rows)  # type: ignore[call-overload]
    expected = np.pad(expected, ((0, 0), (0, 0), (0, 0), (2, 2)), mode=columns)  # type: ignore[call-overload]
    assert np.array_equal(pad_filter(x, 2, mode).numpy(), expected)


def test_zeros_take_the_value() -> None:
    x = torch.ones(1, 1, 1, 1)
    assert pad(x, (0, 1, 0, 0), "zeros", -5.0).flatten().tolist() == [1, -5]


def test_cover_completes_the_last_window() -> None:
    assert cover((7, 8), 2, 2) == (0, 0, 0, 1)
    assert cover((7, 8), 3, 3) == (0, 1, 0, 2)
    assert cover((1, 1), 1, 2) == (0, 0, 0, 0)
