"""A canvas map (h, w) in numbers: the effects of phase, border and rounding, and how far probabilities move."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poolbench.measures.classification import predictions

TOLERANCE = 10 * 1e-6  # of the largest output: positions one period apart that differ by less count as equal


def interior_margin(logits: Tensor, period: int) -> int | None:
    """Return the smallest margin, in positions, inside which a map (h, w) repeats with ``period``; None without one.

    Inside the margin the output depends on the phase of the object alone; within it, on the border as well
    (objects cut off, padding). The interior must exceed the period by at least one position.
    """
    logits = logits.double()
    tolerance = TOLERANCE * float(logits.abs().max())
    for margin in range((min(logits.shape) - period - 1) // 2 + 1):
        inner = _inside(logits, margin)
        down, across = inner[period:] - inner[:-period], inner[:, period:] - inner[:, :-period]
        if max(float(down.abs().max()), float(across.abs().max())) <= tolerance:
            return margin
    return None


def _inside(logits: Tensor, margin: int) -> Tensor:
    """Return the interior of a map (h, w)."""
    return logits[margin : logits.shape[0] - margin, margin : logits.shape[1] - margin]


@dataclass(frozen=True)
class MapParts:
    """A map (h, w) as the sum level + phase + boundary + noise; the last three are maps (h, w).

    ``phases`` (period, period): mean output of the interior by position modulo the period. ``level``: their
    mean. ``phase``: the deviation of a position's phase from the level (aliasing). The remainder of the map
    is ``boundary`` within ``margin`` positions of the border (objects cut off, padding), and ``noise`` in
    the interior (rounding).
    """

    margin: int
    level: float
    phases: Tensor
    phase: Tensor
    boundary: Tensor
    noise: Tensor

    @property
    def phase_deviation(self) -> float:
        """Standard deviation between the phases (ddof 0)."""
        return float(self.phases.std(correction=0))

    @property
    def phase_range(self) -> float:
        """Largest minus smallest phase."""
        return float(self.phases.max() - self.phases.min())

    @property
    def boundary_deviation(self) -> float:
        """Root mean square of the boundary part over the whole map."""
        return float(self.boundary.square().mean().sqrt())

    @property
    def noise_deviation(self) -> float:
        """Root mean square of the noise over the interior."""
        return float(_inside(self.noise, self.margin).square().mean().sqrt())


def decompose(logits: Tensor, period: int) -> MapParts | None:
    """Split a map (h, w) of one output into the effects of phase, border and rounding; None if it has no interior.

    The parts add up to the map. Variation between the period^2 phases is aliasing; variation within a phase
    is the effect of the border. A map of every ``step``-th position has the period
    ``period // gcd(period, step)``.
    """
    margin = interior_margin(logits, period)
    if margin is None:
        return None
    logits = logits.double().cpu()
    height, width = logits.shape
    rows, columns = torch.arange(height) % period, torch.arange(width) % period
    phases = torch.empty(period, period, dtype=torch.float64)
    inner = _inside(logits, margin)
    for y in range(period):
        for x in range(period):
            phases[(y + margin) % period, (x + margin) % period] = inner[y::period, x::period].mean()
    level = float(phases.mean())
    phase = phases[rows[:, None], columns] - level
    rest = logits - level - phase
    noise = torch.zeros_like(rest)
    _inside(noise, margin).copy_(_inside(rest, margin))
    return MapParts(margin, level, phases, phase, rest - noise, noise)


def log_odds(outputs: Tensor, target: int) -> Tensor:
    """Return the log-odds (...) of class ``target`` from outputs (..., c); a single logit is that of class 1 of two."""
    if outputs.shape[-1] == 1:
        return outputs[..., 0] if target == 1 else -outputs[..., 0]
    others = [c for c in range(outputs.shape[-1]) if c != target]
    return outputs[..., target] - outputs[..., others].logsumexp(dim=-1)


@dataclass(frozen=True)
class MapStatistics:
    """Range and standard deviation (ddof 0) of one class's probability over all positions of a map.

    ``flips``: share of positions whose predicted class is not the map's most frequent one.
    """

    range: float
    deviation: float
    flips: float


def map_statistics(outputs: Tensor, target: int = 1) -> MapStatistics:
    """Return the statistics of a map (h, w, outputs) and of the probability of class ``target`` on it."""
    probability = torch.sigmoid(log_odds(outputs.double(), target))
    return MapStatistics(
        range=float(probability.max() - probability.min()),
        deviation=float(probability.std(correction=0)),
        flips=1 - float(predictions(outputs).flatten().bincount().max()) / probability.numel(),
    )
