"""Decisions, and how many of them are the same."""

from __future__ import annotations

import numpy as np
import torch

from poolbench.measures.classification import commonest_share, predictions


def test_predictions() -> None:
    assert predictions(torch.tensor([[-0.1], [0.0], [2.0]])).tolist() == [0, 0, 1]
    assert predictions(torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 1.0]])).tolist() == [1, 0]


def test_share_of_the_commonest_decision() -> None:
    assert commonest_share(np.array([2, 0, 2, 1])) == 0.5
    assert commonest_share(np.zeros(7, dtype=np.int16)) == 1
