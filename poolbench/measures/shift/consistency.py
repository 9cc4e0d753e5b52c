"""Consistency of a classifier's predictions under shifts of whole images, always with its accuracy.

Notation: p_i(c) is the share of shifts at which image i is predicted as class c. Consistency alone misleads,
since a constant predictor is perfectly consistent; so accuracy under the same shifts is reported with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.geometry import Boundary, move, shift_subpixel
from poolbench.measures.classification import predictions, probabilities
from poolbench.measures.shift.phases import period_by_layers
from poolbench.recording import batch_size, outputs

ROUNDING = 1e-4  # tolerance relative to the largest output (at least 0.01): about ten times float32 error in deep nets
COMPARED = 4  # shifts at which a period that was computed layer by layer is compared with forward passes
LEGACY_BATCH = 256
LEGACY_SHIFTS = (-3, 3)  # bounds of torch.randint: -3..2


class NotPeriodic(ValueError):
    """The network's output changes when its input is shifted by a full period."""


@dataclass(frozen=True)
class Consistency:
    """Agreement of a classifier's predictions over a set of shifts, and its accuracy under them.

    ``consistency``: C = mean_i sum_c p_i(c)^2, the probability that two random shifts agree.
    ``corrected``: C' = (C - t) / (1 - t), with t = 1 / shifts the probability of drawing the same shift
    twice: the probability that two different shifts agree (1 if there is only one shift).
    ``kappa``: (C' - e) / (1 - e), with e = sum_c p(c)^2 and p(c) the share of class c among all predictions:
    agreement beyond that of guesses with the same class shares (Fleiss 1971). 0 for a random guesser (it can
    be negative), NaN for a constant predictor.
    ``mean_accuracy``: accuracy averaged over the shifts. ``worst_accuracy``: share of images classified
    correctly under all shifts.
    """

    consistency: float
    corrected: float
    kappa: float
    mean_accuracy: float
    worst_accuracy: float


@dataclass(frozen=True)
class PerImage:
    """What a classifier does to each image over a set of shifts, (n,) each, float64.

    ``consistency``: sum_c p_i(c)^2. ``mean_correct``: share of the shifts at which the image is classified
    correctly. ``worst``: 1 if that is all of them, else 0.
    """

    consistency: Tensor
    mean_correct: Tensor
    worst: Tensor


def per_image(decisions: Tensor, labels: Tensor) -> PerImage:
    """Summarise predicted classes (shifts, n) of images with labels (n,) image by image."""
    right = (decisions == labels).double()
    return PerImage(_shares(decisions, labels).square().sum(dim=1), right.mean(dim=0), right.amin(dim=0))


def _shares(decisions: Tensor, labels: Tensor) -> Tensor:
    """Return p_i(c), (n, classes)."""
    classes = int(max(decisions.max(), labels.max())) + 1
    counts = decisions.new_zeros(decisions.shape[1], classes, dtype=torch.float64)
    ones = torch.ones_like(counts[:, :1]).expand(-1, len(decisions))
    return counts.scatter_add_(1, decisions.T, ones) / len(decisions)


def consistency_of(decisions: Tensor, labels: Tensor) -> Consistency:
    """Summarise predicted classes (shifts, n) of images with labels (n,), one row per distinct shift."""
    shifts = len(decisions)
    images = per_image(decisions, labels)
    agreement = float(images.consistency.mean())
    corrected = 1.0 if shifts == 1 else (agreement - 1 / shifts) / (1 - 1 / shifts)
    expected = float(_shares(decisions, labels).mean(dim=0).square().sum())
    return Consistency(
        agreement,
        corrected,
        (corrected - expected) / (1 - expected) if expected < 1 else nan,
        float(images.mean_correct.mean()),
        float(images.worst.mean()),
    )


def exact_consistency(model: nn.Module, images: Tensor, labels: Tensor, total_stride: int) -> Consistency:
    """Return the consistency over ALL circular shifts of images (n, c, h, w) with labels (n,).

    Costs and errors are those of :func:`period_of_logits`.
    """
    return consistency_of(predictions(period_of_logits(model, images, total_stride)).flatten(0, 1), labels)


def period_of_logits(model: nn.Module, images: Tensor, total_stride: int) -> Tensor:
    """Return the logits (total_stride, total_stride, n, outputs) for all circular shifts within one period.

    ``total_stride`` is in pixels. No other logits occur if the network is periodic: circular padding with
    sizes divisible by the stride at every downsampling, or zero padding with a uniform border wider than
    receptive field and period. Costs total_stride^2 + 2 passes, or about a tenth of that for a network of four
    halvings that is a chain of layers with circular padding (see :mod:`poolbench.measures.shift.phases`), after
    a comparison with a few passes. Raises NotPeriodic if a shift by the total stride changes an output; use
    :func:`shift_grid` for such networks.
    """
    here = outputs(model, images)
    for shift in ((total_stride, 0), (0, total_stride)):
        check_periodic(here, outputs(model, torch.roll(images, shift, dims=(-2, -1))), total_stride)
    if total_stride**2 > COMPARED:
        logits = period_by_layers(model, images, total_stride)
        if logits is not None and _agrees(model, images, logits, here):
            return logits
    phases = range(total_stride)
    return shifted_logits(model, images, phases, phases)


def _agrees(model: nn.Module, images: Tensor, logits: Tensor, here: Tensor) -> bool:
    """Return whether logits (rows, columns, n, outputs) are those of forward passes at some of the shifts."""
    generator = torch.Generator().manual_seed(0)
    shifts = torch.randint(len(logits), (COMPARED - 1, 2), generator=generator).tolist()
    rolled = ((dy, dx, outputs(model, torch.roll(images, (dy, dx), dims=(-2, -1)))) for dy, dx in shifts)
    passes = [(0, 0, here), *rolled]
    return all(_within_rounding(logits[dy, dx], direct) for dy, dx, direct in passes)


def shift_grid(model: nn.Module, images: Tensor, labels: Tensor, reach: int) -> Consistency:
    """Return the consistency over all (2 reach + 1)^2 circular shifts of images (n, c, h, w) by up to ``reach`` px."""
    span = range(-reach, reach + 1)
    return consistency_of(predictions(shifted_logits(model, images, span, span)).flatten(0, 1), labels)


def subpixel_consistency(
    model: nn.Module, images: Tensor, labels: Tensor, shifts: Sequence[tuple[float, float]]
) -> Consistency:
    """Return the consistency over circular subpixel shifts (dy, dx), in pixels, of images (n, c, h, w)."""
    decisions = [predictions(outputs(model, shift_subpixel(images, dy, dx))) for dy, dx in shifts]
    return consistency_of(torch.stack(decisions), labels)


def sampled_agreement(
    model: nn.Module,
    images: Tensor,
    reach: int,
    generator: torch.Generator,
    boundary: Boundary = "circular",
    draws: int = 2,
) -> Tensor:
    """Return the share (n,) of agreeing pairs of decisions at ``draws`` random shifts of each image (n, c, h, w).

    Shifts are uniform in {-reach..reach-1}^2 as in Zhang 2019, but drawn per image, not per batch, so that
    images are independent samples. The mean estimates C without bias, since a shift may be drawn twice.
    ``generator`` is a CPU generator; ``boundary`` as in :func:`poolbench.geometry.move`.
    """
    decisions = []
    for _ in range(draws):
        shifts = torch.randint(-reach, reach, (len(images), 2), generator=generator).to(images.device)
        decisions.append(predictions(outputs(model, move(images, shifts, boundary, reach))))
    pairs = [(first == second).double() for first, second in combinations(decisions, 2)]
    return torch.stack(pairs).mean(dim=0)


def sampled_consistency(
    model: nn.Module,
    images: Tensor,
    reach: int,
    generator: torch.Generator,
    boundary: Boundary = "circular",
    draws: int = 2,
) -> tuple[float, float]:
    """Return the mean of :func:`sampled_agreement` and its standard error over the images."""
    agreement = sampled_agreement(model, images, reach, generator, boundary, draws)
    return float(agreement.mean()), float(agreement.std(correction=0)) / sqrt(len(images))


def legacy_consistency(model: nn.Module, images: Tensor, generator: torch.Generator) -> float:
    """Return the agreement as published (Zhang 2019): ONE pair of circular shifts per batch of 256 images.

    Shifts are uniform in {-3..2}^2. A test set has only a few dozen distinct pairs, so the value varies
    between repetitions far more than its number of images suggests. Use it only to compare with published
    tables.
    """
    agreeing = 0
    for batch in images.split(LEGACY_BATCH):
        pair = torch.randint(*LEGACY_SHIFTS, (2, 2), generator=generator).tolist()
        first, second = (predictions(outputs(model, torch.roll(batch, shift, dims=(-2, -1)))) for shift in pair)
        agreeing += int((first == second).sum())
    return agreeing / len(images)


def shifted_logits(model: nn.Module, images: Tensor, rows: Iterable[int], columns: Iterable[int]) -> Tensor:
    """Return the logits (rows, columns, n, outputs) of images (n, c, h, w) rolled by every (row, column), in pixels."""
    rows, columns = list(rows), list(columns)
    parts = []
    for batch in images.split(batch_size(images)):
        # All columns at once, so that a few images fill a batch, too.
        moved = (torch.cat([torch.roll(batch, (dy, dx), dims=(-2, -1)) for dx in columns]) for dy in rows)
        parts.append(torch.stack([outputs(model, row).unflatten(0, (len(columns), len(batch))) for row in moved]))
    return torch.cat(parts, dim=2)


def check_periodic(here: Tensor, moved: Tensor, total_stride: int) -> None:
    """Raise NotPeriodic if logits differ from those one full period away by more than rounding."""
    if not _within_rounding(moved, here):
        change = float((moved - here).abs().max())
        raise NotPeriodic(
            f"a shift by the total stride of {total_stride} px changes an output by {change:.2g}: the network is not "
            "periodic on these images (zero padding near an object, a size that is odd at some halving, or another "
            "total stride); measure over a stated set of shifts with shift_grid"
        )


def _within_rounding(first: Tensor, second: Tensor) -> bool:
    return float((first - second).abs().max()) <= ROUNDING * max(0.01, float(second.abs().max()))


@dataclass(frozen=True)
class Steps:
    """Effect of shifts by one pixel to the four neighbours.

    ``flip_rate``: share of steps that change the predicted class (Azulay and Weiss 2019 take one diagonal
    step). ``mean_absolute_change``: mean absolute change of the probability of the class that was predicted
    before the step.
    """

    flip_rate: float
    mean_absolute_change: float


def step_changes(logits: Tensor, wrap: bool = False) -> Steps:
    """Summarise all steps between vertical and horizontal neighbours of logits (rows, columns, n, outputs).

    Each pair counts in both directions. With ``wrap`` the grid is one full period: the first row follows the
    last, and likewise for columns.
    """
    probability, decision = probabilities(logits.double()), predictions(logits)
    flips, changes = [], []
    for dim in (0, 1):
        size = logits.shape[dim]
        steps = size if wrap else size - 1
        here = torch.arange(steps, device=logits.device)
        for start, end in ((here, (here + 1) % size), ((here + 1) % size, here)):
            before, after = decision.index_select(dim, start), decision.index_select(dim, end)
            flips.append((before != after).flatten())
            gain = probability.index_select(dim, end) - probability.index_select(dim, start)
            changes.append(gain.gather(-1, before[..., None]).abs().flatten())
    return Steps(float(torch.cat(flips).double().mean()), float(torch.cat(changes).mean()))


def average_phases(logits: Tensor, total_stride: int) -> Tensor:
    """Average logits (rows, columns, n, outputs) over windows of total_stride x total_stride shifts.

    Test-time averaging over all phases, as proposed by Scheidl 2022. Circular shifts compose, so the averages
    under several shifts come from the same passes. The result has total_stride - 1 fewer rows and columns.
    """
    rows, columns, count, outputs = logits.shape
    flat = logits.permute(2, 3, 0, 1).reshape(count * outputs, 1, rows, columns)
    averaged = F.avg_pool2d(flat, total_stride, stride=1)
    return averaged.view(count, outputs, *averaged.shape[-2:]).permute(2, 3, 0, 1)


class BFloat16(nn.Module):
    """A network under bfloat16 autocast: images (n, c, h, w) -> float32 logits (n, outputs)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()
