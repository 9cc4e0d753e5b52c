"""Variances of many small groups, each drawn towards what all of them together say (Smyth 2004, limma)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from scipy import optimize, special

MOST_FREEDOM = 10.0
"""Largest weight of the prior. Without a bound, similar groups by luck make it infinite, and one unlike them alarms."""


@dataclass(frozen=True)
class Prior:
    """What the groups of one metric say about the variance of any: its size, and how many degrees of freedom it is
    worth."""

    variance: float
    freedom: float

    def moderate(self, variance: float, freedom: float) -> tuple[float, float]:
        """Return (variance, degrees of freedom) of a group after its own are averaged with the prior."""
        total = self.freedom + freedom
        return (self.freedom * self.variance + freedom * variance) / total, total


NO_PRIOR = Prior(0.0, 0.0)


def fit_prior(variances: Sequence[float], freedoms: Sequence[float], most: float = MOST_FREEDOM) -> Prior:
    """Return the prior of group variances s^2 > 0 with their degrees of freedom (Smyth 2004, section 6.2).

    If s^2 of a group with d degrees of freedom follows s0^2 F(d, d0), the mean and the variance of log s^2 give s0^2
    and d0. d0 is cut at ``most``. Fewer than three groups say too little: the result is then ``NO_PRIOR``.
    """
    if len(variances) < 3:
        return NO_PRIOR
    half = np.asarray(freedoms, dtype=np.float64) / 2
    logs = np.log(np.asarray(variances, dtype=np.float64)) - special.digamma(half) + np.log(half)
    beyond_chance = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    freedom = 2 * _inverse_trigamma(beyond_chance) if beyond_chance > 0 else inf
    # The logarithm of a variance with few degrees of freedom is low on average.
    correction = 0.0 if freedom == inf else float(special.digamma(freedom / 2)) - log(freedom / 2)
    return Prior(exp(float(logs.mean()) + correction), min(freedom, most))


def _inverse_trigamma(value: float) -> float:
    """Return x > 0 with trigamma(x) = value > 0; trigamma falls from infinity to 0."""
    if value > 1e7:
        return float(1 / np.sqrt(value))
    if value < 1e-6:
        return 1 / value
    return float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - value, 1e-4, 2e6))
