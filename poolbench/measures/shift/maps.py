"""The canvas map: a network's output with one object at every position of a canvas (Scheidl 2022).

A network of convolutions and pools with total stride S answers periodically, with period S, wherever the
object is far from the border. So the map follows from one period of the interior and from a band along
the border. What is taken for granted is checked; where it does not hold, every position is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from poolbench.measures.classification import predictions
from poolbench.measures.shift.passes import batch_size, outputs
from poolbench.pooling import Head

CHECKS = 32  # random positions at which a map built from one period is compared with the network
ROUNDING = 1e-6  # of the largest output: what float32 leaves between two ways to the same number
Positions = list[tuple[int, int]]


def canvas_map(
    model: nn.Module, stamp: Tensor, canvas: Tensor, period: int | None = None, exhaustive: bool = False
) -> Tensor:
    """Return the outputs (h, w, outputs) with ``stamp`` centred on every pixel of ``canvas``.

    ``stamp`` (c, sh, sw) has odd sizes and is cut at the border of ``canvas`` (c, h, w). On a uniform
    canvas the interior is evaluated once per phase of ``period`` (None: the total stride, found by
    probing) and the border as deep as it reaches; positions drawn at random check the result. Where
    there is no such period (a receptive field as large as the canvas, pools that look at the whole
    map) and with ``exhaustive`` there is one forward pass per position. Raises ValueError for a stamp
    without a centre or with other channels than the canvas.
    """
    channels, stamp_height, stamp_width = stamp.shape
    if stamp_height % 2 == 0 or stamp_width % 2 == 0:
        raise ValueError(f"a stamp has odd sizes to have a centre, got {stamp_height}x{stamp_width}")
    if channels != canvas.shape[0]:
        raise ValueError(f"stamp and canvas share their channels, got {channels} and {canvas.shape[0]}")
    scene = _Scene(model, stamp, canvas)
    if not exhaustive and bool((canvas == canvas[:, :1, :1]).all()):
        found = _periodic_map(scene, period or total_stride(model, canvas))
        if found is not None:
            return found
    height, width = canvas.shape[-2:]
    return scene.at([(y, x) for y in range(height) for x in range(width)]).view(height, width, -1)


class _Scene:
    """A stamp on a canvas before a network; what was evaluated once is remembered."""

    def __init__(self, model: nn.Module, stamp: Tensor, canvas: Tensor) -> None:
        self.model, self.stamp, self.canvas = model, stamp, canvas
        self.known: dict[tuple[int, int], Tensor] = {}

    def at(self, positions: Positions) -> Tensor:
        """Return the outputs (positions, outputs) with the stamp centred at each (y, x)."""
        new = [position for position in dict.fromkeys(positions) if position not in self.known]
        size = batch_size(self.canvas[None])
        for start in range(0, len(new), size):
            part = new[start : start + size]
            self.known.update(zip(part, outputs(self.model, self.paste(part)), strict=True))
        return torch.stack([self.known[position] for position in positions])

    def block(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the outputs (rows, columns, outputs) at all pairs of a row and a column."""
        positions = [(y, x) for y in rows.tolist() for x in columns.tolist()]
        return self.at(positions).view(len(rows), len(columns), -1)

    def lines(self, dim: int, along: Tensor, across: Tensor) -> Tensor:
        """Return the outputs (along, across, outputs) where ``along`` are rows (dim 0) or columns (dim 1)."""
        return self.block(along, across) if dim == 0 else self.block(across, along).transpose(0, 1)

    def paste(self, positions: Positions) -> Tensor:
        """Return one canvas (positions, c, h, w) per position, the stamp cut where it leaves."""
        above, left = self.stamp.shape[-2] // 2, self.stamp.shape[-1] // 2
        canvases = self.canvas.repeat(len(positions), 1, 1, 1)
        for canvas, (y, x) in zip(canvases, positions, strict=True):
            target = canvas[:, max(0, y - above) : y + above + 1, max(0, x - left) : x + left + 1]
            top, start = max(0, above - y), max(0, left - x)
            target.copy_(self.stamp[:, top : top + target.shape[1], start : start + target.shape[2]])
        return canvases


@dataclass(frozen=True)
class _Axis:
    """One axis of a periodic map: outside ``low..high`` each position stands for itself, inside for its phase.

    ``depth`` is the first position of the period in the interior that stands for all others.
    """

    size: int
    period: int
    depth: int
    low: int
    high: int

    @property
    def phases(self) -> Tensor:
        return torch.arange(self.depth, self.depth + self.period)

    @property
    def sources(self) -> Tensor:
        """For each position (size,) the position whose output it has."""
        position = torch.arange(self.size)
        inside = (position >= self.low) & (position < self.high)
        return torch.where(inside, self.depth + (position - self.depth) % self.period, position)

    @property
    def own(self) -> tuple[Tensor, Tensor]:
        """The positions that stand for any, and for each position (size,) its place among them."""
        own, place = self.sources.unique(return_inverse=True)
        return own, place


def _periodic_map(scene: _Scene, period: int) -> Tensor | None:
    """Return the map from one period of the interior and the border, None where that is no shortcut or false."""
    reach = receptive_reach(scene.model, scene.canvas)
    if reach is None:
        return None
    axes = []
    for size, side in zip(scene.canvas.shape[-2:], scene.stamp.shape[-2:], strict=True):
        # From twice the reach on, features of the object are clear of those that the border changes; a
        # size that some pool does not divide adds up to a period.
        depth = side // 2 + 2 * reach + period
        if 2 * depth + period > size:
            return None
        axes.append(_Axis(size, period, depth, depth, size - depth))
    tolerance = ROUNDING * float(scene.block(axes[0].phases, axes[1].phases).abs().max())
    found_axes = _deepened(scene, _narrowed(scene, axes, tolerance), tolerance)
    if found_axes is None:
        return None
    rows, columns = found_axes
    (own_rows, row_of), (own_columns, column_of) = rows.own, columns.own
    found = scene.block(own_rows, own_columns)[row_of][:, column_of]
    generator = torch.Generator().manual_seed(0)
    checks = [torch.randint(axis.size, (CHECKS,), generator=generator) for axis in axes]
    checked = scene.at(list(zip(checks[0].tolist(), checks[1].tolist(), strict=True)))
    return found if float((checked - found[checks[0], checks[1]]).abs().max()) <= 10 * tolerance else None


def _narrowed(scene: _Scene, axes: Sequence[_Axis], tolerance: float) -> list[_Axis]:
    """Return the axes with borders as deep as they change the lines through the interior, one per phase."""
    narrowed = []
    for dim, (axis, other) in enumerate(zip(axes, reversed(axes), strict=True)):
        own, place = axis.own
        lines = scene.lines(dim, own, other.phases)[place]
        change = (lines - lines[replace(axis, low=0, high=axis.size).sources]).abs().amax(dim=(1, 2))
        touched = (change > tolerance).nonzero().flatten()
        low, high = touched[touched < axis.low], touched[touched >= axis.high]
        narrowed.append(
            replace(
                axis,
                low=int(low.max()) + 1 if len(low) else 0,
                high=int(high.min()) if len(high) else axis.size,
            )
        )
    return narrowed


def _deepened(scene: _Scene, axes: list[_Axis], tolerance: float) -> list[_Axis] | None:
    """Return the axes with borders deepened until the first line behind each agrees with its phase everywhere.

    An object that one border cuts may feel another border from further away than a whole object does.
    None where a border reaches further than the receptive field: there is no such period.
    """
    while True:
        before = list(axes)
        for dim in (0, 1):
            others = axes[1 - dim].own[0]
            for name, first, deeper in (("low", axes[dim].low, 1), ("high", axes[dim].high - 1, -1)):
                pair = torch.stack([torch.tensor(first), axes[dim].sources[first]])
                ring, phase = scene.lines(dim, pair, others)
                if float((ring - phase).abs().max()) > tolerance:
                    axes[dim] = replace(axes[dim], **{name: getattr(axes[dim], name) + deeper})
        if any(axis.low > axis.depth or axis.high < axis.size - axis.depth for axis in axes):
            return None
        if axes == before:
            return axes


def total_stride(model: nn.Module, canvas: Tensor) -> int:
    """Return how many pixels of ``canvas`` (c, h, w) one step of the network's coarsest map spans.

    Read off the sizes of all maps that appear in a forward pass, those of the global pooling left out.
    For networks of convolutions and pools this is the period of their answers.
    """
    return max((stride for stride, _ in _probe(model, canvas)), default=1)


def receptive_reach(model: nn.Module, canvas: Tensor) -> int | None:
    """Return by how many pixels an input pixel influences features to any side, None where it is all over a map.

    A NaN in the middle of ``canvas`` (c, h, w) travels wherever a convolution or pool carries it, weights
    and dead units notwithstanding.
    """
    height, width = canvas.shape[-2:]
    reach = 0
    for stride, touched in _probe(model, canvas):
        for size, middle, dim in ((height, height // 2, 1), (width, width // 2, 0)):
            marked = touched.any(dim=dim).nonzero().flatten()
            if not len(marked):
                continue
            first, last = int(marked.min()) * stride, int(marked.max()) * stride + stride - 1
            if first == 0 or last >= size - 1:
                return None
            reach = max(reach, middle - first, last - middle)
    return reach


def _probe(model: nn.Module, canvas: Tensor) -> list[tuple[int, Tensor]]:
    """Return (stride, booleans (h', w'): reached by the middle pixel) of every map in a forward pass."""
    found: list[tuple[int, Tensor]] = []
    heads = [module for module in model.modules() if isinstance(module, Head | nn.AdaptiveAvgPool2d)]
    inside = {part for head in heads for part in head.modules()}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[-2:]) > 1:
            stride = round(max(size / own for size, own in zip(canvas.shape[-2:], output.shape[-2:], strict=True)))
            found.append((stride, output[0].isnan().any(dim=0).cpu()))

    marked = canvas[None].clone()
    marked[..., canvas.shape[-2] // 2, canvas.shape[-1] // 2] = torch.nan
    with ExitStack() as stack:
        for module in model.modules():
            if module not in inside and not any(module.children()):
                stack.callback(module.register_forward_hook(note).remove)
        outputs(model, marked)
    return found


def interior_margin(logits: Tensor, period: int) -> int | None:
    """Return the least margin inside which a map (h, w) repeats with ``period``; None where it never does.

    What lies within the margin answers to the border as well (objects cut, padding), what lies inside
    to the phase of the object alone. At least one step beyond a full period must be left to see it repeat.
    """
    logits = logits.double()
    tolerance = 10 * ROUNDING * float(logits.abs().max())
    for margin in range((min(logits.shape) - period - 1) // 2 + 1):
        inner = _inside(logits, margin)
        down, across = inner[period:] - inner[:-period], inner[:, period:] - inner[:, :-period]
        if max(float(down.abs().max()), float(across.abs().max())) <= tolerance:
            return margin
    return None


def _inside(logits: Tensor, margin: int) -> Tensor:
    return logits[margin : logits.shape[0] - margin, margin : logits.shape[1] - margin]


@dataclass(frozen=True)
class MapParts:
    """A map (h, w) as level + phase + boundary + noise, each of the parts (h, w).

    ``phases`` (period, period) are the interior's mean outputs by position modulo the period, of which
    ``level`` is the mean and ``phase`` the deviation: aliasing. ``boundary`` is, within ``margin`` of the
    border, what the position adds to its phase: objects cut, padding. ``noise`` is the same inside:
    rounding.
    """

    margin: int
    level: float
    phases: Tensor
    phase: Tensor
    boundary: Tensor
    noise: Tensor

    @property
    def phase_deviation(self) -> float:
        """The standard deviation between phases, each as frequent as the others."""
        return float(self.phases.std(correction=0))

    @property
    def phase_range(self) -> float:
        return float(self.phases.max() - self.phases.min())

    @property
    def boundary_deviation(self) -> float:
        """The root mean square of the boundary part over the whole map."""
        return float(self.boundary.square().mean().sqrt())

    @property
    def noise_deviation(self) -> float:
        """The root mean square of the noise over the interior."""
        return float(_inside(self.noise, self.margin).square().mean().sqrt())


def decompose(logits: Tensor, period: int) -> MapParts | None:
    """Split a map (h, w) of one output into what phase, border and rounding do; None where it has no interior.

    The parts sum up to the map. Their deviations tell aliasing (between the period^2 phases) from the
    border's effect (within a phase).
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
    """Return the log-odds (...) of class ``target`` from outputs (..., c); one logit stands for two classes."""
    if outputs.shape[-1] == 1:
        return outputs[..., 0] if target == 1 else -outputs[..., 0]
    others = [c for c in range(outputs.shape[-1]) if c != target]
    return outputs[..., target] - outputs[..., others].logsumexp(dim=-1)


@dataclass(frozen=True)
class MapStatistics:
    """A canvas map in numbers.

    ``range`` and ``deviation`` are those of a class's probability over all positions, ``flips`` the share
    of positions whose decision is not the map's most frequent one.
    """

    range: float
    deviation: float
    flips: float


def map_statistics(outputs: Tensor, target: int = 1) -> MapStatistics:
    """Summarise a map (h, w, outputs) and the probability of class ``target`` on it."""
    probability = torch.sigmoid(log_odds(outputs.double(), target))
    return MapStatistics(
        range=float(probability.max() - probability.min()),
        deviation=float(probability.std(correction=0)),
        flips=1 - float(predictions(outputs).flatten().bincount().max()) / probability.numel(),
    )
