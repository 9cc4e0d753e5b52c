"""Optimisers, and the learning rate as a function of the position: nothing of a schedule needs storing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from poolbench.core import TrainConfig

MOMENTUM = 0.9
WARM_UP = 0.3  # share of a one-cycle training during which the rate rises
FIRST, LAST = 1 / 25, 1 / 250_000  # rates of a one-cycle training at both ends, as shares of the highest


def build_optimizer(config: TrainConfig, parameters: Iterable[Tensor], spared_dim: int = 1) -> torch.optim.Optimizer:
    """Return the optimiser of these parameters; decay spares those of up to ``spared_dim`` dimensions.

    Biases, normalisation weights and single numbers keep the scale that training gives them. Stacked
    parameters have one dimension more (``spared_dim=2``). On a GPU one kernel updates all parameters; on a CPU
    that is a few percent of a step at best, not worth other last bits in every weight.
    """
    every = list(parameters)
    groups = [
        {"params": [p for p in every if p.dim() > spared_dim], "weight_decay": config.weight_decay},
        {"params": [p for p in every if p.dim() <= spared_dim], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = True if every[0].is_cuda else None
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, fused=fused)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of step 0 <= ``step`` < ``steps`` of a training.

    constant; step: a tenth from half of the training on, a hundredth from three quarters on (He et al.
    2016); cosine: half a period down to 0 (Loshchilov & Hutter 2017); one_cycle: half a cosine up from
    1/25, half a cosine down to nearly 0 (Smith & Topin 2018).
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
    """Half a cosine from ``start`` (share 0) to ``end`` (share 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
