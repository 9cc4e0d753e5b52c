"""Polyphase pools: the first component is taken in place of the one that the content of the map chooses.

Imitates a comparison of scores that always falls back to index 0. The pool becomes a plain decimation and loses
its exact equivariance: a shift by the stride of the last convolution changes the answers, so there is no exact
consistency either.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import poolbench.pooling.polyphase
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.pooling.polyphase, "_winners")
def always_the_first(original: Callable[..., Tensor], scores: Tensor, x: Tensor, stride: int) -> Tensor:
    """Return index 0 for every image."""
    return torch.zeros_like(original(scores, x, stride))
