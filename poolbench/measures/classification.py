"""Predicted classes and probabilities from logits, and whether a network predicts more than one class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def predictions(logits: Tensor) -> Tensor:
    """Return the predicted classes (...) for logits (..., c); a single logit predicts class 1 if it is positive."""
    return (logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(dim=-1)


def probabilities(logits: Tensor) -> Tensor:
    """Return class probabilities (..., classes) for logits (..., c); a single logit is that of class 1 of two."""
    if logits.shape[-1] == 1:
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=-1)
    return logits.softmax(dim=-1)


def commonest_share(decisions: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> float:
    """Return the share of the commonest class among predicted classes (n,): 1 for a constant predictor."""
    return float(np.bincount(decisions).max()) / len(decisions)
