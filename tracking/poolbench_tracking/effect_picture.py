"""The effect of a claim as a small picture: its interval, 0, and the margin within which nobody would act."""

from __future__ import annotations

from dataclasses import dataclass
from math import log

from poolbench.analysis.claims import Verdict

WIDTH, HEIGHT = 180, 20
"""Of the picture, in px."""


@dataclass(frozen=True)
class Picture:
    """Positions along x in px: of the mean, the ends of the interval, 0, and the ends of the margin.

    ``low`` and ``high`` are None for too few seeds. Ratios are drawn on their logarithms.
    """

    mean: float
    low: float | None
    high: float | None
    zero: float
    margin: tuple[float, float]


def picture(verdict: Verdict) -> Picture | None:
    """Return the picture of a verdict, None for one without an effect. 0 is in the middle."""
    effect = verdict.effect
    if effect is None:
        return None
    shown = (effect.mean, effect.low, effect.high) if effect.is_bounded else (effect.mean,)
    mean, *bounds = (_position(value, verdict.is_ratio) for value in shown)
    half = 1.1 * max(*(abs(value) for value in (mean, *bounds)), verdict.margin) or 1.0

    def across(value: float) -> float:
        return round(WIDTH / 2 * (1 + value / half), 1)

    low, high = (across(bounds[0]), across(bounds[1])) if bounds else (None, None)
    return Picture(across(mean), low, high, across(0.0), (across(-verdict.margin), across(verdict.margin)))


def _position(value: float, is_ratio: bool) -> float:
    # An interval of few seeds can reach down to a ratio of 0.
    return log(max(value, 1e-300)) if is_ratio else value
