"""How a classifier answers when its input moves: canvas maps and consistency under circular shifts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from poolbench.measures.classification import predictions

BATCH = 256


class NotPeriodic(ValueError):
    """The network's output changes when its input moves by the full period."""


def canvas_map(model: nn.Module, stamp: Tensor, canvas: Tensor, batch: int = BATCH) -> Tensor:
    """Return the outputs (h, w, outputs) with ``stamp`` centred on every pixel of ``canvas``.

    ``stamp`` (c, sh, sw) has odd sizes and is cut at the border of ``canvas`` (c, h, w). One forward
    pass per position, in batches; the map of Scheidl 2022.
    """
    channels, stamp_height, stamp_width = stamp.shape
    if stamp_height % 2 == 0 or stamp_width % 2 == 0:
        raise ValueError(f"a stamp has odd sizes to have a centre, got {stamp_height}x{stamp_width}")
    if channels != canvas.shape[0]:
        raise ValueError(f"stamp and canvas share their channels, got {channels} and {canvas.shape[0]}")
    height, width = canvas.shape[-2:]
    above, left = stamp_height // 2, stamp_width // 2
    frame = torch.nn.functional.pad(canvas, (left, left, above, above))
    positions = [(y, x) for y in range(height) for x in range(width)]

    def pasted() -> Iterator[Tensor]:
        for start in range(0, len(positions), batch):
            chosen = positions[start : start + batch]
            frames = frame.repeat(len(chosen), 1, 1, 1)
            for image, (y, x) in zip(frames, chosen, strict=True):
                image[:, y : y + stamp_height, x : x + stamp_width] = stamp
            yield frames[:, :, above : above + height, left : left + width]

    return _logits(model, pasted()).view(height, width, -1)


@dataclass(frozen=True)
class MapStatistics:
    """A canvas map of one logit in numbers.

    ``range`` and ``deviation`` are those of the probability over all positions, ``interior_range``
    that of the logit further than ``margin`` from the border (aliasing alone), ``flips`` the share of
    positions whose decision is not the map's most frequent one.
    """

    range: float
    deviation: float
    interior_range: float
    flips: float


def map_statistics(logits: Tensor, margin: int) -> MapStatistics:
    """Summarise a map of one logit per position (h, w); the interior excludes ``margin`` pixels on each side."""
    logits = logits.double()
    if 2 * margin >= min(logits.shape):
        raise ValueError(f"a margin of {margin} leaves no interior of a map of {tuple(logits.shape)}")
    probability = torch.sigmoid(logits)
    interior = logits[margin : logits.shape[0] - margin, margin : logits.shape[1] - margin]
    positive = float((logits > 0).double().mean())
    return MapStatistics(
        range=float(probability.max() - probability.min()),
        deviation=float(probability.std(correction=0)),
        interior_range=float(interior.max() - interior.min()),
        flips=min(positive, 1 - positive),
    )


@dataclass(frozen=True)
class Consistency:
    """Agreement of a classifier with itself under shifts, beside its accuracy under them.

    ``consistency`` is C = mean_i sum_c p_i(c)^2, the chance that two random shifts of an image agree;
    ``corrected`` is C' = (C - t) / (1 - t) with t the chance that both shifts fall in one phase (1
    where there is one phase only); ``mean_accuracy`` and ``worst_accuracy`` are the accuracy averaged
    over the shifts and the share of images that are right under all of them.
    """

    consistency: float
    corrected: float
    mean_accuracy: float
    worst_accuracy: float


def exact_consistency(model: nn.Module, images: Tensor, labels: Tensor, period: int) -> Consistency:
    """Return the consistency over all circular shifts from period^2 passes over images (n, c, h, w).

    Exact where the network is periodic: circular padding with sizes that the total stride ``period``
    divides, or zero padding with a uniform border wider than receptive field and period. Raises
    NotPeriodic where a shift by the full period changes an output.
    """
    original = _logits(model, images.split(BATCH))
    for dims in ((-2,), (-1,)):
        moved = _logits(model, torch.roll(images, [period], dims=dims).split(BATCH))
        change = float((moved - original).abs().max())
        if change > 1e-3 * max(1.0, float(original.abs().max())):
            raise NotPeriodic(
                f"a shift by the period of {period} px changes an output by {change:.2g}: the network is not periodic "
                "on these images (zero padding near an object, or a size that the total stride does not divide)"
            )
    decisions = torch.stack(
        [predictions(logits) for _, logits in _shifted_logits(model, images, grid_of_shifts(period))]
    )
    return consistency_of(decisions, labels, same_phase=1 / period**2)


def grid_of_shifts(period: int) -> list[tuple[int, int]]:
    """Return the period^2 shifts (dy, dx) of one period."""
    return [(dy, dx) for dy in range(period) for dx in range(period)]


def consistency_of(decisions: Tensor, labels: Tensor, same_phase: float) -> Consistency:
    """Summarise decisions (shifts, n) about images with labels (n,)."""
    classes = int(max(decisions.max(), labels.max())) + 1
    share = torch.nn.functional.one_hot(decisions, classes).double().mean(dim=0)
    agreement = float(share.square().sum(dim=1).mean())
    right = decisions == labels
    corrected = 1.0 if same_phase == 1 else (agreement - same_phase) / (1 - same_phase)
    return Consistency(agreement, corrected, float(right.double().mean()), float(right.all(dim=0).double().mean()))


def sampled_consistency(
    model: nn.Module, images: Tensor, reach: int, generator: torch.Generator
) -> tuple[float, float]:
    """Return (agreement, standard error) for one pair of random circular shifts per image (n, c, h, w).

    Both shifts of a pair are uniform in {-reach..reach-1}^2, as in Zhang 2019, but drawn per image and
    not per batch.
    """
    decisions = [predictions(_logits(model, roll_each(images, reach, generator).split(BATCH))) for _ in range(2)]
    agreement = float((decisions[0] == decisions[1]).double().mean())
    return agreement, sqrt(agreement * (1 - agreement) / len(images))


def roll_each(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """Shift each image (n, c, h, w) circularly by its own random shift in {-reach..reach-1}^2."""
    count, _, height, width = images.shape
    shifts = torch.randint(-reach, reach, (count, 2), generator=generator).to(images.device)
    rows = (torch.arange(height, device=images.device) - shifts[:, :1]) % height
    columns = (torch.arange(width, device=images.device) - shifts[:, 1:]) % width
    sample = torch.arange(count, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _shifted_logits(
    model: nn.Module, images: Tensor, shifts: list[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    for shift in shifts:
        yield shift, _logits(model, torch.roll(images, shift, dims=(-2, -1)).split(BATCH))


def _logits(model: nn.Module, batches: Iterator[Tensor] | tuple[Tensor, ...]) -> Tensor:
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in batches])
