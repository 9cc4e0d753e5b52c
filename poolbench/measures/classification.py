"""Decisions, probabilities, and what counts as having learned."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor


def predictions(logits: Tensor) -> Tensor:
    """Return classes (...) of logits (..., c); a single logit decides for class 1 where it is positive."""
    return (logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(dim=-1)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class (..., classes) from logits (..., c); one logit stands for two classes."""
    if logits.shape[-1] == 1:
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=-1)
    return logits.softmax(dim=-1)


def has_learned(accuracy: float, classes: int, samples: int) -> bool:
    """Return whether an accuracy over ``samples`` is above chance by 3 standard errors and by 10 % of the way.

    The second condition keeps a large test set from calling a useless network learned: 1/classes is
    chance, and a tenth of what lies between chance and 1 is asked for.
    """
    chance = 1 / classes
    error = sqrt(chance * (1 - chance) / samples)
    return accuracy > chance + max(3 * error, 0.1 * (1 - chance))
