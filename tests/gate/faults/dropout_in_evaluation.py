"""Evaluation: a tenth of the values that enter the head is dropped, and training drops none.

Imitates dropout that is left on, as ``F.dropout(x)`` is where nobody passes ``training``. No network of the quick
preset has dropout of its own (strided_net has), so it is planted at the head. Answers are random: a network is not
periodic any more, and two evaluations differ.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

import poolbench.pooling
from poolbench.core import Component, Scalar
from poolbench.plugins import import_code
from poolbench.pooling import Head

patching = import_code(str(Path(__file__).with_name("_patching.py")))

SHARE = 0.1


def drop_in_evaluation(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Drop values of a head's input unless it is in training."""
    return inputs if head.training else (F.dropout(inputs[0], SHARE), *inputs[1:])


@patching.in_place_of(poolbench.pooling, "create_head")
def with_dropout(
    original: Callable[..., Head],
    name: str | Component,
    channels: int,
    size: tuple[int, int] | None = None,
    **options: Scalar,
) -> Head:
    """Return a head with dropout before it."""
    head = original(name, channels, size, **options)
    head.register_forward_pre_hook(drop_in_evaluation)
    return head
