"""The most unstable images: the centre crop beside the crop one pixel further that changes the decision most."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import torch
from torch import Tensor

from poolbench.own_model.images import Images
from poolbench.own_model.passes import Answers
from poolbench.own_model.results import Look, Strip
from poolbench.own_model.shifts import STEP_NAMES, STEPS, window

STRIPS = 10


def strips(images: Images, size: int, answers: Answers, name_of: Callable[[int], str]) -> list[Strip]:
    """Return up to ten images that most of the eight steps flip, most unstable first.

    ``answers`` are those of :func:`~poolbench.own_model.shifts.windows`. Ties go to the larger mean change of the
    probability. The step that is shown flips the decision, with the largest change of the probability.
    """
    flips, change = answers.flipped.double(), answers.change
    # Changes are below 1, so they only order images with equal numbers of flips.
    order = (flips.sum(dim=0) + change.mean(dim=0)).argsort(descending=True, stable=True).tolist()
    return [
        _strip(images, size, index, answers, name_of)
        for index in order[:STRIPS]
        if bool(answers.flipped[:, index].any())
    ]


def _strip(images: Images, size: int, index: int, answers: Answers, name_of: Callable[[int], str]) -> Strip:
    flipped = answers.flipped[:, index]
    step = int((answers.change[:, index] * flipped).argmax())
    listing = images.listing

    def look(dy: int, dx: int, row: int) -> Look:
        crop = window(size, dy, dx)(images.larger[index : index + 1], index)[0]
        decision = int(answers.decisions[row, index])
        return Look(to_png(crop), name_of(decision), float(answers.probability[row, index]))

    return Strip(
        listing.files[index].relative_to(listing.folder).as_posix(),
        "" if listing.labels is None else listing.classes[int(listing.labels[index])],
        STEP_NAMES[STEPS[step]],
        float(flipped.double().mean()),
        look(0, 0, 0),
        look(*STEPS[step], step + 1),
    )


def to_png(crop: Tensor) -> bytes:
    """Return a crop (3, h, w) as a PNG; the float values of a transform are stretched to the range of a pixel."""
    from PIL import Image

    if crop.dtype != torch.uint8:
        low, high = crop.min(), crop.max()
        crop = (255 * (crop - low) / (high - low).clamp_min(1e-9)).to(torch.uint8)
    content = BytesIO()
    Image.fromarray(crop.permute(1, 2, 0).contiguous().numpy()).save(content, format="PNG")
    return content.getvalue()
