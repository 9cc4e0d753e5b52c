"""Optimisers, and learning rate schedules as functions of the step, so that checkpoints need no schedule state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from poolbench.core import TrainConfig

MOMENTUM = 0.9
WARM_UP = 0.3  # share of the steps of a one-cycle training in which the rate rises
FIRST, LAST = 1 / 25, 1 / 250_000  # first and last rate of a one-cycle training, relative to the highest


def build_optimizer(config: TrainConfig, parameters: Iterable[Tensor], exempt_dim: int = 1) -> torch.optim.Optimizer:
    """Return the optimiser; parameters with up to ``exempt_dim`` dimensions are exempt from weight decay.

    These are biases, normalisation weights and scalars; stacked parameters have one dimension more
    (``exempt_dim=2``). On a GPU the fused implementation updates all parameters in one kernel. On a CPU it saves a few
    percent of a step at most and changes the last bits, so it is not used.
    """
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.dim() > exempt_dim], "weight_decay": config.weight_decay},
        {"params": [p for p in every if p.dim() <= exempt_dim], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = True if every[0].is_cuda else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, fused=fused)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate at step 0 <= ``step`` < ``steps``.

    "constant"; "step": times 0.1 after half of the steps, times 0.01 after three quarters (He et al. 2016); "cosine":
    half a cosine down to 0 (Loshchilov and Hutter 2017); "one_cycle": half a cosine up from 1/25 of the highest rate,
    then half a cosine down to nearly 0 (Smith and Topin 2018).
    """
    highest = config.learning_rate
    if config.schedule == "step":
        return highest * 0.1 ** ((2 * step >= steps) + (4 * step >= 3 * steps))
    if config.schedule == "cosine":
        return _between(highest, 0.0, step / steps)
    if config.schedule == "one_cycle":
        top = WARM_UP * steps - 1
        if step <= top:
            return _between(highest * FIRST, highest, step / top)
        return _between(highest, highest * LAST, (step - top) / max(steps - 1 - top, 1))
    return highest


def _between(start: float, end: float, share: float) -> float:
    """Return the value of half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
