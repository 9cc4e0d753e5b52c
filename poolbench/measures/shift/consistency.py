"""Whether a classifier keeps its decision when whole images move.

Notation: p_i(c) is the share of shifts at which image i is taken for class c. A robustness figure alone
misleads (a constant predictor never changes its mind), so accuracy under the same shifts comes with each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.geometry import Boundary, move, shift_subpixel
from poolbench.measures.classification import predictions, probabilities
from poolbench.recording import batch_size, outputs

ROUNDING = 1e-4  # of the largest output, 0.01 at least: some ten times what float32 leaves in a deep network
LEGACY_BATCH = 256
LEGACY_SHIFTS = (-3, 3)  # torch.randint's bounds: -3..2


class NotPeriodic(ValueError):
    """The network's output changes when its input moves by the full period."""


@dataclass(frozen=True)
class Consistency:
    """Agreement of a classifier with itself under a set of shifts, beside its accuracy under them.

    ``consistency``: C = mean_i sum_c p_i(c)^2, the chance that two shifts drawn at random agree.
    ``corrected``: C' = (C - t) / (1 - t), t = 1 / shifts the chance of drawing the same shift twice: the
    chance that two different shifts agree (1 where there is one shift only).
    ``kappa``: (C' - e) / (1 - e), e = sum_c p(c)^2 with p(c) the share of class c among all decisions: what is
    left beyond the agreement of guesses with the same class shares (Fleiss 1971); 0 for a random guesser,
    NaN for a constant predictor, of which nothing can be said.
    ``mean_accuracy`` is the accuracy averaged over the shifts, ``worst_accuracy`` the share of images that
    are right under all of them.
    """

    consistency: float
    corrected: float
    kappa: float
    mean_accuracy: float
    worst_accuracy: float


def consistency_of(decisions: Tensor, labels: Tensor) -> Consistency:
    """Summarise decisions (shifts, n) about images with labels (n,), one row per different shift."""
    shifts = len(decisions)
    classes = int(max(decisions.max(), labels.max())) + 1
    share = F.one_hot(decisions, classes).double().mean(dim=0)
    agreement = float(share.square().sum(dim=1).mean())
    corrected = 1.0 if shifts == 1 else (agreement - 1 / shifts) / (1 - 1 / shifts)
    expected = float(share.mean(dim=0).square().sum())
    right = decisions == labels
    return Consistency(
        agreement,
        corrected,
        (corrected - expected) / (1 - expected) if expected < 1 else nan,
        float(right.double().mean()),
        float(right.all(dim=0).double().mean()),
    )


def exact_consistency(model: nn.Module, images: Tensor, labels: Tensor, total_stride: int) -> Consistency:
    """Return the consistency over ALL circular shifts from total_stride^2 passes over images (n, c, h, w).

    Raises NotPeriodic as :func:`period_of_logits` does.
    """
    return consistency_of(predictions(period_of_logits(model, images, total_stride)).flatten(0, 1), labels)


def period_of_logits(model: nn.Module, images: Tensor, total_stride: int) -> Tensor:
    """Return logits (total_stride, total_stride, n, outputs) under the shifts of one period: all that occur.

    Exact where the network is periodic: circular padding with sizes that the total stride divides at every
    halving, or zero padding with a uniform border wider than receptive field and period. Raises NotPeriodic
    where a shift by the total stride changes an output; ``shift_grid`` is the measure for such networks.
    """
    phases = range(total_stride)
    logits = shifted_logits(model, images, phases, phases)
    for shift in ((total_stride, 0), (0, total_stride)):
        check_periodic(logits[0, 0], outputs(model, torch.roll(images, shift, dims=(-2, -1))), total_stride)
    return logits


def shift_grid(model: nn.Module, images: Tensor, labels: Tensor, reach: int) -> Consistency:
    """Return the consistency over the (2 reach + 1)^2 circular shifts of images (n, c, h, w) by up to ``reach``."""
    span = range(-reach, reach + 1)
    return consistency_of(predictions(shifted_logits(model, images, span, span)).flatten(0, 1), labels)


def subpixel_consistency(
    model: nn.Module, images: Tensor, labels: Tensor, shifts: Sequence[tuple[float, float]]
) -> Consistency:
    """Return the consistency over circular shifts (dy, dx) of images (n, c, h, w) by fractions of a pixel."""
    decisions = [predictions(outputs(model, shift_subpixel(images, dy, dx))) for dy, dx in shifts]
    return consistency_of(torch.stack(decisions), labels)


def sampled_consistency(
    model: nn.Module, images: Tensor, reach: int, generator: torch.Generator, boundary: Boundary = "circular"
) -> tuple[float, float]:
    """Return (agreement, its standard error) for one pair of random shifts per image (n, c, h, w).

    Both shifts of a pair are uniform in {-reach..reach-1}^2 (Zhang 2019), but drawn per image and not per
    batch, so the images are independent samples. ``boundary`` as in ``moves.move``.
    """
    decisions = []
    for _ in range(2):
        shifts = torch.randint(-reach, reach, (len(images), 2), generator=generator).to(images.device)
        decisions.append(predictions(outputs(model, move(images, shifts, boundary, reach))))
    agreement = float((decisions[0] == decisions[1]).double().mean())
    return agreement, sqrt(agreement * (1 - agreement) / len(images))


def legacy_consistency(model: nn.Module, images: Tensor, generator: torch.Generator) -> float:
    """Return the agreement as it is published (Zhang 2019): ONE pair of circular shifts per batch of 256.

    Shifts are uniform in {-3..2}^2. With a few dozen different pairs in a whole test set the value
    scatters between repetitions far more than its number of images suggests; it serves to compare with
    published tables only.
    """
    agreeing = 0
    for batch in images.split(LEGACY_BATCH):
        pair = torch.randint(*LEGACY_SHIFTS, (2, 2), generator=generator).tolist()
        first, second = (predictions(outputs(model, torch.roll(batch, shift, dims=(-2, -1)))) for shift in pair)
        agreeing += int((first == second).sum())
    return agreeing / len(images)


def shifted_logits(model: nn.Module, images: Tensor, rows: Iterable[int], columns: Iterable[int]) -> Tensor:
    """Return logits (rows, columns, n, outputs) of images (n, c, h, w) rolled by every (row, column)."""
    rows, columns = list(rows), list(columns)
    parts = []
    for batch in images.split(batch_size(images)):
        # All columns in one go: few images in many shifts fill a batch, too.
        moved = (torch.cat([torch.roll(batch, (dy, dx), dims=(-2, -1)) for dx in columns]) for dy in rows)
        parts.append(torch.stack([outputs(model, row).unflatten(0, (len(columns), len(batch))) for row in moved]))
    return torch.cat(parts, dim=2)


def check_periodic(here: Tensor, moved: Tensor, total_stride: int) -> None:
    """Raise NotPeriodic where logits differ from those one full period away by more than rounding."""
    change = float((moved - here).abs().max())
    if not change <= ROUNDING * max(0.01, float(here.abs().max())):
        raise NotPeriodic(
            f"a shift by the total stride of {total_stride} px changes an output by {change:.2g}: the network is not "
            "periodic on these images (zero padding near an object, a size that is odd at some halving, or another "
            "total stride); measure over a stated set of shifts with shift_grid"
        )


@dataclass(frozen=True)
class Steps:
    """What single steps of one pixel change.

    ``flip_rate``: the share of steps that change the decision (the four neighbours; Azulay and Weiss 2019
    take one diagonal step). ``mean_absolute_change``: the mean change of the probability of the class that
    was decided for before the step.
    """

    flip_rate: float
    mean_absolute_change: float


def step_changes(logits: Tensor, wrap: bool = False) -> Steps:
    """Summarise all steps between vertical and horizontal neighbours of logits (rows, columns, n, outputs).

    Each pair is stepped both ways. ``wrap``: the rectangle is one full period, so its last row is
    followed by its first.
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
    """Average logits (rows, columns, n, outputs) of a shift and the total_stride^2 - 1 shifts after it.

    The test-time remedy of Scheidl 2022: the network answers with its mean over all phases. As circular
    shifts compose, averages under further shifts come from the same passes. The result has
    total_stride - 1 rows and columns less.
    """
    rows, columns, count, outputs = logits.shape
    flat = logits.permute(2, 3, 0, 1).reshape(count * outputs, 1, rows, columns)
    averaged = F.avg_pool2d(flat, total_stride, stride=1)
    return averaged.view(count, outputs, *averaged.shape[-2:]).permute(2, 3, 0, 1)


class BFloat16(nn.Module):
    """A network evaluated under bfloat16 autocast: images (n, c, h, w) -> float32 logits (n, outputs)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            logits: Tensor = self.model(x)
        return logits.float()
