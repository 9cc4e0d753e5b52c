"""Consistency: the first shift counts twice.

Imitates a list of shifts that names the unshifted image and then a grid that contains it. A tenth of the shifts of a
3x3 grid is then compared with itself, and consistency is too high. Among the 256 shifts of an exact consistency it is
lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import poolbench.measures.shift.consistency
from poolbench.measures.shift import PerImage
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.measures.shift.consistency, "per_image")
def once_more(original: Callable[..., PerImage], decisions: Tensor, labels: Tensor) -> PerImage:
    """Summarise the decisions with those at the first shift once more."""
    return original(torch.cat((decisions[:1], decisions)), labels)
