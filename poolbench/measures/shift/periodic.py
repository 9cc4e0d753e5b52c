"""The canvas map of a periodic network, from one period of the interior and a band along the border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poolbench.measures.shift.scene import Scene

CHECKS = 32  # random positions at which the result is compared with the network
ROUNDING = 1e-6  # of the largest output: float32 error between two ways to compute the same number


@dataclass(frozen=True)
class Axis:
    """One axis of a periodic map: positions in ``low..high`` repeat with ``period``, the others are evaluated.

    ``depth`` is the first position of the period in the interior that represents all others.
    """

    size: int
    period: int
    depth: int
    low: int
    high: int

    @property
    def phases(self) -> Tensor:
        """The positions (period,) of the representative period."""
        return torch.arange(self.depth, self.depth + self.period)

    @property
    def sources(self) -> Tensor:
        """For each position (size,) the position whose output it shares."""
        position = torch.arange(self.size)
        inside = (position >= self.low) & (position < self.high)
        return torch.where(inside, self.depth + (position - self.depth) % self.period, position)

    @property
    def evaluated(self) -> tuple[Tensor, Tensor]:
        """The distinct sources, and for each position (size,) the index of its source among them."""
        positions, index = self.sources.unique(return_inverse=True)
        return positions, index


def axes_of(canvas: Tensor, stamp: Tensor, period: int, reach: int) -> list[Axis] | None:
    """Return both axes of the map with the widest border, None if the canvas is too small for a period inside it."""
    axes = []
    for size, side in zip(canvas.shape[-2:], stamp.shape[-2:], strict=True):
        # Beyond twice the reach, the features of the object and those that the border changes do not overlap.
        # A size that some pool does not divide adds up to one period.
        depth = side // 2 + 2 * reach + period
        if 2 * depth + period > size:
            return None
        axes.append(Axis(size, period, depth, depth, size - depth))
    return axes


def most_passes(axes: Sequence[Axis]) -> int:
    """Return an upper bound on the forward passes of :func:`periodic_map`."""
    rows, columns = (2 * axis.depth + axis.period for axis in axes)
    return rows * columns + CHECKS


def periodic_map(scene: Scene, axes: Sequence[Axis]) -> Tensor | None:
    """Return the map (h, w, outputs), None if the network turns out not to be periodic.

    Both borders are first narrowed to what lines through the interior need, then deepened until the map
    agrees with its phases behind them; random positions check the result.
    """
    tolerance = ROUNDING * float(scene.block(axes[0].phases, axes[1].phases).abs().max())
    fitted = _deepened(scene, _narrowed(scene, axes, tolerance), tolerance)
    if fitted is None:
        return None
    (rows, row_of), (columns, column_of) = fitted[0].evaluated, fitted[1].evaluated
    result = scene.block(rows, columns)[row_of][:, column_of]
    generator = torch.Generator().manual_seed(0)
    y, x = (torch.randint(axis.size, (CHECKS,), generator=generator) for axis in axes)
    checked = scene.at(list(zip(y.tolist(), x.tolist(), strict=True)))
    return result if float((checked - result[y, x]).abs().max()) <= 10 * tolerance else None


def _narrowed(scene: Scene, axes: Sequence[Axis], tolerance: float) -> list[Axis]:
    """Return the axes with borders only as deep as they change lines through the interior, one line per phase."""
    narrowed = []
    for dim, (axis, other) in enumerate(zip(axes, reversed(axes), strict=True)):
        positions, index = axis.evaluated
        lines = scene.lines(dim, positions, other.phases)[index]
        change = (lines - lines[replace(axis, low=0, high=axis.size).sources]).abs().amax(dim=(1, 2))
        changed = (change > tolerance).nonzero().flatten()
        low, high = changed[changed < axis.low], changed[changed >= axis.high]
        narrowed.append(
            replace(
                axis,
                low=int(low.max()) + 1 if len(low) else 0,
                high=int(high.min()) if len(high) else axis.size,
            )
        )
    return narrowed


def _deepened(scene: Scene, axes: list[Axis], tolerance: float) -> list[Axis] | None:
    """Return the axes with borders deepened until the first line behind each agrees with its phase everywhere.

    An object that is cut off by one border can depend on another border at a greater distance than a whole
    object does. None if a border reaches further than the receptive field: the network has no such period.
    """
    while True:
        before = list(axes)
        for dim in (0, 1):
            others = axes[1 - dim].evaluated[0]
            for name, first, deeper in (("low", axes[dim].low, 1), ("high", axes[dim].high - 1, -1)):
                pair = torch.stack([torch.tensor(first), axes[dim].sources[first]])
                ring, phase = scene.lines(dim, pair, others)
                if float((ring - phase).abs().max()) > tolerance:
                    axes[dim] = replace(axes[dim], **{name: getattr(axes[dim], name) + deeper})
        if any(axis.low > axis.depth or axis.high < axis.size - axis.depth for axis in axes):
            return None
        if axes == before:
            return axes
