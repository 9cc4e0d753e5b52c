"""How long things take: the budget of an advice, and the time of an answer against that of the network as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import quantiles

import torch
from torch import Tensor, nn

from poolbench.analysis.statistics import Interval
from poolbench.own_model.results import Timing

TURNS = 31
LOWER_RANK = 10
"""With 31 values, the 10th from either end bounds the median at 95 % (binomial)."""


class OutOfTime(Exception):
    """What comes next would end after the budget."""


class Clock:
    """The time that is left of a budget in seconds (None: no limit). ``clock`` returns seconds."""

    def __init__(self, budget: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._budget, self._began = clock, budget, clock()

    @property
    def spent(self) -> float:
        return self._clock() - self._began

    def check(self, seconds: float) -> None:
        """Raise OutOfTime if what takes that long would end after the budget."""
        if self._budget is not None and self.spent + seconds > self._budget:
            raise OutOfTime


@dataclass(frozen=True)
class AnswerTime:
    """The time of an answer, and its ratio to that of the network as it is: the median with its 95 % interval."""

    timing: Timing
    ratio: Interval


def answer_time(network: nn.Module, images: Tensor, reference: nn.Module, one: Tensor) -> AnswerTime:
    """Return the time of a pass of a network over images, against that of the reference over ``one`` image.

    Both are timed in turn, pass by pass, so that other work on the machine slows both.
    """
    own, ratios = [], []
    for turn in range(-2, TURNS):
        first, second = _milliseconds(network, images), _milliseconds(reference, one)
        if turn >= 0:  # those before warm up
            own.append(first)
            ratios.append(first / second)
    low, middle, high = quantiles(own, n=4)
    ratios.sort()
    ratio = Interval(ratios[TURNS // 2], ratios[LOWER_RANK - 1], ratios[-LOWER_RANK], TURNS)
    return AnswerTime(Timing(1, middle, low, high, TURNS), ratio)


def _milliseconds(network: nn.Module, images: Tensor) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        network(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
    return (time.perf_counter() - began) * 1e3
