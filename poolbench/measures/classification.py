"""Predicted classes and probabilities from logits, and whether an accuracy is above chance."""

from __future__ import annotations

from math import sqrt

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


def has_learned(accuracy: float, classes: int, samples: int) -> bool:
    """Return whether ``accuracy`` over ``samples`` images is clearly above chance, 1 / classes.

    Clearly: by more than 3 standard errors and by more than a tenth of the distance from chance to 1. The
    second condition matters for large test sets, where a useless network can be significantly above chance.
    """
    chance = 1 / classes
    error = sqrt(chance * (1 - chance) / samples)
    return accuracy > chance + max(3 * error, 0.1 * (1 - chance))
