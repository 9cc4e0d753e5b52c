"""Calibration of a classifier: do its probabilities say how often it is right?"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

BINS = 15


def reliability(confidence: Tensor, correct: Tensor, bins: int = BINS) -> pd.DataFrame:
    """Return accuracy against confidence, one row per non-empty bin of equal width.

    ``confidence`` (n,) is the probability of the predicted class, ``correct`` (n,) whether it is right. Columns: low,
    high (a bin is (low, high]), n, confidence, accuracy (means over the images of the bin). Guo et al. 2017.
    """
    confidence, correct = confidence.double().cpu(), correct.double().cpu()
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    rows = []
    for number in index.unique().tolist():
        members = index == number
        means = float(confidence[members].mean()), float(correct[members].mean())
        rows.append((number / bins, (number + 1) / bins, int(members.sum()), *means))
    return pd.DataFrame(rows, columns=["low", "high", "n", "confidence", "accuracy"])


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Return the mean over images of |accuracy - confidence| of their bin, from :func:`reliability` (Guo et al. 2017).

    Biased upwards where bins hold few images: chance alone separates accuracy from confidence.
    """
    gaps = (table["accuracy"] - table["confidence"]).abs()
    return float((gaps * table["n"]).sum() / table["n"].sum())
