"""How much the units of each stage answer differently when the image moves by a pixel or turns by ten degrees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from poolbench.geometry import disc_mask, rotate, shift
from poolbench.inspect.saliency import DEGREES
from poolbench.inspect.stages import Stage
from poolbench.inspect.taps import read

STEPS = ((0, 1), (0, -1), (1, 0), (-1, 0))
"""One-pixel shifts as dy, dx; black enters."""
ANGLES = (DEGREES, -DEGREES)
LISTED = 3
"""Units, and images that excite each most, that are listed per stage."""
KINDS = ("shift_mean", "shift_max", "turn_mean", "turn_max")


@dataclass(frozen=True)
class UnitChange:
    """Relative changes of a unit: mean |change of its response| / mean |response|, over images and moves.

    Responses are the mean and the maximum over positions, moves the 1-px shifts and the turns by 10 degrees.
    ``exciting`` are the numbers of the images with its largest maxima, the largest first.
    """

    unit: int
    shift_mean: float
    shift_max: float
    turn_mean: float
    turn_max: float
    exciting: tuple[int, ...]

    @property
    def largest(self) -> float:
        """The largest of the four changes."""
        return max(self.shift_mean, self.shift_max, self.turn_mean, self.turn_max)


@dataclass(frozen=True)
class StageInvariance:
    """The changes of a stage over ``images`` images: medians over the ``units`` units that answer at all, and extremes.

    The ``least`` invariant units have the largest ``UnitChange.largest``, the ``most`` invariant ones the smallest.
    ``follows`` is the median over units of the correlation, over positions within the images, between the maps and the
    maps of the turned image turned back: 1 for maps that turn with the image, 0 for noise. ``other`` is the same with
    the maps of another image, which is what borders and positions alone give; None for a single image. Medians are
    None where no unit answers.
    """

    images: int
    units: int
    shift_mean: float | None
    shift_max: float | None
    turn_mean: float | None
    turn_max: float | None
    follows: float | None
    other: float | None
    least: tuple[UnitChange, ...]
    most: tuple[UnitChange, ...]


@dataclass
class _Sums:
    """Sums over images from which the correlation (c,) of pairs of maps follows."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(6, 1, dtype=torch.float64))

    def add(self, first: Tensor, second: Tensor, inside: Tensor) -> None:
        """Add pairs of maps (b, c, h, w) at the positions ``inside`` (h, w), each without its own mean.

        With the means, maps of noise would correlate too: a unit that answers to an image answers to it turned.
        """
        values = (maps[:, :, inside].double() for maps in (first, second))
        x, y = ((one - one.mean(2, keepdim=True)).transpose(0, 1).flatten(1) for one in values)
        count = torch.full((len(x),), float(x.shape[1]), dtype=torch.float64)
        self.sums = self.sums + torch.stack(
            [count, x.sum(1), y.sum(1), x.square().sum(1), y.square().sum(1), (x * y).sum(1)]
        )

    def correlation(self) -> Tensor:
        """Return the correlations (c,), NaN for constant units and without pairs."""
        n, x, y, xx, yy, xy = self.sums
        found: Tensor = (n * xy - x * y) / ((n * xx - x * x).clamp(min=0) * (n * yy - y * y).clamp(min=0)).sqrt()
        return found


@dataclass
class _Collected:
    """What the passes over the images leave of one stage."""

    maxima: list[Tensor] = field(default_factory=list)
    response: Tensor = field(default_factory=lambda: torch.zeros(2, 1, dtype=torch.float64))
    changes: Tensor = field(default_factory=lambda: torch.zeros(4, 1, dtype=torch.float64))
    same: _Sums = field(default_factory=_Sums)
    other: _Sums = field(default_factory=_Sums)
    last: Tensor | None = None


def measure_invariance(network: nn.Module, stages: Sequence[Stage], batches: Iterable[Tensor]) -> list[StageInvariance]:
    """Return the invariance of each stage over batches of images (b, c, h, w)."""
    found = [_Collected() for _ in stages]
    taps = [stage.tap for stage in stages]
    for batch in batches:
        originals = [maps.cpu() for maps in read(network, batch, taps)[1]]
        before = [_responses(maps) for maps in originals]
        for one, (mean, high) in zip(found, before, strict=True):
            one.maxima.append(high)
            one.response = one.response + torch.stack([mean.abs().sum(0), high.abs().sum(0)])
        for step in STEPS:
            images = shift(batch, torch.tensor([step], device=batch.device).expand(len(batch), 2))
            _add_changes(found, before, [maps.cpu() for maps in read(network, images, taps)[1]], 0, len(STEPS))
        for angle in ANGLES:
            images = rotate(batch, torch.full((len(batch),), angle), "reflect")
            turned = [maps.cpu() for maps in read(network, images, taps)[1]]
            _add_changes(found, before, turned, 2, len(ANGLES))
            if angle == DEGREES:
                for one, maps, there in zip(found, originals, turned, strict=True):
                    _add_pairs(one, maps, rotate(there, torch.full((len(there),), -angle), "reflect"))
    return [_summary(one) for one in found]


def _responses(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and maximum over positions (b, c) of maps (b, c, h, w)."""
    return maps.mean(dim=(-2, -1)).double(), maps.amax(dim=(-2, -1)).double()


def _add_changes(
    found: Sequence[_Collected], before: Sequence[tuple[Tensor, Tensor]], maps: Sequence[Tensor], row: int, moves: int
) -> None:
    for one, own, moved in zip(found, before, maps, strict=True):
        change = torch.stack(
            [(new - old).abs().sum(0) / moves for new, old in zip(_responses(moved), own, strict=True)]
        )
        rows = torch.zeros(4, change.shape[1], dtype=torch.float64)
        rows[row : row + 2] = change
        one.changes = one.changes + rows


def _add_pairs(one: _Collected, maps: Tensor, back: Tensor) -> None:
    """Add the maps with the turned ones of the same image, and with those of the image before it."""
    inside = disc_mask((maps.shape[2], maps.shape[3]))
    one.same.add(maps, back, inside)
    before = maps[:-1] if one.last is None else torch.cat([one.last, maps[:-1]])
    after = back[len(back) - len(before) :]
    if len(before):
        one.other.add(before, after, inside)
    one.last = maps[-1:]


def _summary(one: _Collected) -> StageInvariance:
    maxima = torch.cat(one.maxima)
    response = one.response[[0, 1, 0, 1]]
    alive = (one.response > 0).all(0)
    relative = one.changes[:, alive] / response[:, alive]
    numbers = alive.nonzero().flatten().tolist()
    order = relative.amax(0).argsort(stable=True).tolist() if numbers else []

    def change_of(place: int) -> UnitChange:
        unit = numbers[place]
        exciting = maxima[:, unit].argsort(descending=True, stable=True)[:LISTED].tolist()
        changes: dict[str, float] = dict(zip(KINDS, relative[:, place].tolist(), strict=True))
        return UnitChange(unit=unit, exciting=tuple(exciting), **changes)

    medians = {name: _median(row) for name, row in zip(KINDS, relative, strict=True)}
    return StageInvariance(
        images=len(maxima),
        units=len(numbers),
        **medians,
        follows=_median(one.same.correlation()),
        other=_median(one.other.correlation()) if len(maxima) > 1 else None,
        least=tuple(change_of(place) for place in order[::-1][:LISTED]),
        most=tuple(change_of(place) for place in order[:LISTED]),
    )


def _median(values: Tensor) -> float | None:
    finite = values[values.isfinite()]
    return float(finite.median()) if len(finite) else None
