"""Decisions and chance."""

from __future__ import annotations

import pytest
import torch

from poolbench.measures.classification import has_learned, predictions


def test_predictions() -> None:
    assert predictions(torch.tensor([[-0.1], [0.0], [2.0]])).tolist() == [0, 0, 1]
    assert predictions(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("accuracy", "classes", "samples", "expected"),
    [
        (0.50, 2, 1000, False),
        (0.54, 2, 1_000_000, False),  # significant, and useless
        (0.56, 2, 10_000, True),
        (0.56, 2, 100, False),  # 3 standard errors are .15
        (0.15, 10, 1000, False),
        (0.25, 10, 1000, True),
    ],
)
def test_has_learned(accuracy: float, classes: int, samples: int, expected: bool) -> None:
    assert has_learned(accuracy, classes, samples) == expected
