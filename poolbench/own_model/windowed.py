"""Remedies at test time: several neighbouring crops decide together."""

from __future__ import annotations

import torch
from torch import Tensor

from poolbench.own_model.passes import Answers, Passes, answers_of
from poolbench.own_model.remedies import Remedy
from poolbench.own_model.shifts import STEPS, window


def windowed(passes: Passes, remedy: Remedy) -> Answers:
    """Return the answers of a remedy at test time at the centre and after each of the eight steps.

    The remedy sees the crops around a position: for a window of 3 those up to a pixel away, for one of 2 the crop
    itself and those a pixel further down and right. Neighbouring positions share crops; each is classified once.
    """
    start = -1 - (remedy.window - 1) // 2
    offsets = range(start, start + remedy.window + 2)
    changes = [window(passes.size, dy, dx) for dy in offsets for dx in offsets]
    parts = []
    for first, larger in passes.batches():
        logits = torch.stack([passes.logits(change(larger, first)) for change in changes])
        grid = logits.unflatten(0, (len(offsets), len(offsets)))
        # (positions, positions, n, outputs, window * window)
        seen = grid.unfold(0, remedy.window, 1).unfold(1, remedy.window, 1).flatten(-2)
        parts.append(answers_of(_ordered(_combined(seen, remedy))))
    names = ("decisions", "probability", "reference")
    return Answers(*(torch.cat([getattr(part, name) for part in parts], dim=1) for name in names))


def _combined(seen: Tensor, remedy: Remedy) -> Tensor:
    """Return the logits (rows, columns, n, outputs) that a remedy makes of those of several crops (..., crops)."""
    if remedy.kind == "averaged":
        return seen.mean(-1)
    # One logit is that of the second of two classes: the farther from 0, the more confident.
    confidence = seen.abs()[..., 0, :] if seen.shape[-2] == 1 else seen.softmax(-2).amax(-2)
    best = confidence.argmax(-1)[..., None, None].expand(*seen.shape[:-1], 1)
    return seen.gather(-1, best)[..., 0]


def _ordered(grid: Tensor) -> Tensor:
    """Return logits (9, n, outputs) of positions (3, 3, n, outputs): the centre, then the eight steps."""
    return torch.stack([grid[1 + dy, 1 + dx] for dy, dx in ((0, 0), *STEPS)])
