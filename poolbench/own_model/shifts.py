"""What one-pixel steps, and all positions of the crop window, do to the decisions on the user's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import sqrt

import torch
from torch import Tensor

from poolbench.analysis.bootstrap import bootstrap_interval, bootstrap_intervals
from poolbench.analysis.statistics import Interval
from poolbench.core import derive_seed
from poolbench.geometry import Boundary, move, shift_subpixel
from poolbench.measures import shift
from poolbench.measures.classification import predictions
from poolbench.own_model.passes import Answers, Change, Passes, as_float
from poolbench.own_model.results import Changes, ExactConsistency, Published

STEPS = tuple((dy, dx) for dy, dx in product((-1, 0, 1), repeat=2) if dy or dx)
"""The eight one-pixel steps (dy, dx) of the crop window."""
STRAIGHT = tuple(index for index, step in enumerate(STEPS) if 0 in step)
DIAGONAL = tuple(index for index, step in enumerate(STEPS) if 0 not in step)
STEP_NAMES = {
    (-1, -1): "up and left", (-1, 0): "up", (-1, 1): "up and right", (0, -1): "left",
    (0, 1): "right", (1, -1): "down and left", (1, 0): "down", (1, 1): "down and right",
}  # fmt: skip
Labels = Tensor | None


def window(size: int, dy: int = 0, dx: int = 0) -> Change:
    """Return the crop of ``size`` px at the centre of the larger image, moved by (dy, dx)."""

    def crop(larger: Tensor, first: int) -> Tensor:
        top, left = ((side - size) // 2 for side in larger.shape[-2:])
        return larger[..., top + dy : top + dy + size, left + dx : left + dx + size]

    return crop


def windows(size: int) -> list[Change]:
    """Return the centre crop and the eight crops one pixel further."""
    return [window(size), *(window(size, dy, dx) for dy, dx in STEPS)]


def moved(size: int, boundary: Boundary) -> list[Change]:
    """Return the centre crop, and the same crop shifted by the eight steps with a boundary of ``geometry.move``."""

    def by(dy: int, dx: int) -> Change:
        def change(larger: Tensor, first: int) -> Tensor:
            images = window(size)(larger, first)
            shifts = torch.tensor([[dy, dx]], device=images.device).expand(len(images), 2)
            return move(images, shifts, boundary, 1)

        return change

    return [window(size), *(by(dy, dx) for dy, dx in STEPS)]


def half_pixels(size: int) -> list[Change]:
    """Return the centre crop, and the same crop shifted circularly by half of each of the eight steps."""

    def by(dy: int, dx: int) -> Change:
        return lambda larger, first: shift_subpixel(window(size)(larger, first), dy / 2, dx / 2)

    return [window(size), *(by(dy, dx) for dy, dx in STEPS)]


def rescales(size: int, rescaled: Sequence[Tensor]) -> list[Change]:
    """Return the centre crop, and the crops (n, 3, size, size) of differently resized images."""

    def by(images: Tensor) -> Change:
        return lambda larger, first: as_float(images[first : first + len(larger)].to(larger.device))

    return [window(size), *(by(images) for images in rescaled)]


def summary(name: str, title: str, answers: Answers, labels: Labels) -> Changes:
    """Return the shares and means of answers, with intervals over the images, stratified by labels (n,)."""
    flips, change = answers.flipped.double(), answers.change
    columns = [flips.mean(dim=0), flips.amax(dim=0), change.mean(dim=0)]
    if labels is not None:
        correct = (answers.decisions == labels).double()
        columns += [correct[0], correct.amin(dim=0)]
    strata = None if labels is None else labels.numpy()
    # The change of a probability is no share: an unseen kind of image is no reason to widen it.
    share = [True, True, False, True, True][: len(columns)]
    share_of_pairs, of_images, mean_change, *of_labels = bootstrap_intervals(
        torch.stack(columns, dim=1).numpy(), strata, share
    )
    accuracy, worst = of_labels if of_labels else (None, None)
    return Changes(name, title, len(flips), share_of_pairs, of_images, mean_change, accuracy, worst)


def step_summaries(answers: Answers, labels: Labels) -> list[Changes]:
    """Return the summaries of all eight steps of the window, of the four straight and of the four diagonal ones."""

    def of(steps: Sequence[int]) -> Answers:
        return answers.chosen([0, *(index + 1 for index in steps)])

    return [
        summary("steps", "all eight steps", answers, labels),
        summary("straight", "up, down, left, right", of(STRAIGHT), labels),
        summary("diagonal", "diagonal", of(DIAGONAL), labels),
    ]


def compared(passes: Passes, rescaled: Sequence[Tensor]) -> dict[str, Answers]:
    """Return {kind of small change: answers on the same images}; ``rescaled`` as in :func:`rescales`, may be empty."""
    size = passes.size
    kinds: dict[str, Callable[[], list[Change]]] = {
        "circular": lambda: moved(size, "circular"),
        "zeros": lambda: moved(size, "crop"),
        "half_pixel": lambda: half_pixels(size),
    }
    if rescaled:
        kinds["scale"] = lambda: rescales(size, rescaled)
    return {name: passes.answers(changes()) for name, changes in kinds.items()}


KIND_TITLES = {
    "window": "crop window moved by 1 px",
    "circular": "circular shift by 1 px",
    "zeros": "shift by 1 px, zeros enter",
    "half_pixel": "circular shift by half a pixel",
    "scale": "image resized to 1 px less and more",
}
"""Title of each kind of small change."""


def compared_passes(images: int, has_rescaled: bool) -> int:
    """Return the forward passes of :func:`compared`, in images."""
    return images * (3 * (1 + len(STEPS)) + (3 if has_rescaled else 0))


def random_pairs(passes: Passes) -> Tensor:
    """Return whether the decisions at two random positions of the window agree, for each image (n,), as 0 or 1.

    Positions are uniform over the margin (Zhang 2019), drawn for each image with a fixed seed. The same position may be
    drawn twice.
    """
    margin = passes.larger.shape[-1] - passes.size
    generator = torch.Generator().manual_seed(derive_seed(0, "pairs of positions"))
    drawn = torch.randint(margin + 1, (2, len(passes), 2), generator=generator)

    def at(positions: Tensor) -> Change:
        def change(larger: Tensor, first: int) -> Tensor:
            here = positions[first : first + len(larger)].tolist()
            return torch.stack(
                [
                    image[:, top : top + passes.size, left : left + passes.size]
                    for image, (top, left) in zip(larger, here, strict=True)
                ]
            )

        return change

    first, second = passes.answers([at(drawn[0]), at(drawn[1])]).decisions
    agreement: Tensor = (first == second).double()
    return agreement


def published(agreement: Tensor, exact_agreement: Tensor, labels: Labels) -> Published:
    """Return the published estimate from :func:`random_pairs` (n,), and its scatter from exact agreements (m,).

    For an image whose pairs agree with probability c, one drawn pair has the variance c (1 - c).
    """
    strata = None if labels is None else labels.numpy()
    spread = float((exact_agreement * (1 - exact_agreement)).mean())
    return Published(bootstrap_interval(agreement.numpy(), strata), sqrt(spread / len(agreement)))


def exact_window(passes: Passes, labels: Labels) -> tuple[ExactConsistency, Tensor]:
    """Return the consistency over ALL positions of the crop window, and each image's own (n,).

    Costs (large - size + 1)^2 passes per image; memory: the logits of one image.
    """
    size = passes.size
    side = passes.larger.shape[-1] - size + 1
    decisions, flips = [], []
    for image in passes.larger:
        larger = as_float(image.to(passes.device))
        crops = larger.unfold(1, size, 1).unfold(2, size, 1).flatten(1, 2).transpose(0, 1)
        parts = [passes.logits(part.contiguous()) for part in crops.split(passes.batch)]
        logits = torch.cat(parts).unflatten(0, (side, side))[:, :, None]
        decisions.append(predictions(logits)[..., 0].cpu())
        flips.append(shift.step_changes(logits).flip_rate)
    grid = torch.stack(decisions, dim=-1)
    return _summarised(grid, torch.tensor(flips, dtype=torch.float64), (side - 1) // 2, labels)


def exact_circular(passes: Passes, total_stride: int, labels: Labels) -> ExactConsistency | None:
    """Return the consistency over ALL circular shifts of the centre crop; None if the network is not periodic.

    Costs total_stride^2 passes per image at most (see :func:`poolbench.measures.shift.period_of_logits`).
    """
    grids: list[Tensor] = []
    for start, larger in passes.batches():
        try:
            logits = shift.period_of_logits(passes.network, window(passes.size)(larger, start), total_stride)
        except shift.NotPeriodic:
            return None
        if not grids:
            passes.counter.expect(len(passes) * total_stride**2)
        passes.counter.add(len(larger) * total_stride**2)
        grids.append(predictions(logits.flatten(0, 2)).view(logits.shape[:3]).cpu())
    return _summarised(torch.cat(grids, dim=2), None, 0, labels)[0]


def _summarised(grid: Tensor, flips: Tensor | None, centre: int, labels: Labels) -> tuple[ExactConsistency, Tensor]:
    """Return the summary of decisions (rows, columns, n), and the consistency of each image (n,)."""
    here = grid[centre, centre]
    decisions, strata = grid.flatten(0, 1), None if labels is None else labels.numpy()
    whole = shift.consistency_of(decisions, here if labels is None else labels)
    images = shift.per_image(decisions, here if labels is None else labels)
    columns = [images.consistency, images.mean_correct, images.worst, *([] if flips is None else [flips])]
    found = bootstrap_intervals(torch.stack(columns, dim=1).numpy(), strata)
    accuracy: tuple[Interval | None, Interval | None] = (None, None) if labels is None else (found[1], found[2])
    agreement = (grid == here).double().mean(dim=-1).tolist()
    summary = ExactConsistency(
        len(decisions),
        found[0],
        whole.corrected,
        whole.kappa,
        *accuracy,
        None if flips is None else found[3],
        agreement,
    )
    return summary, images.consistency
