"""Remedies at test time: several neighbouring crops decide together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from poolbench.own_model.passes import Answers, Passes, answers_of, joined
from poolbench.own_model.remedies import Remedy
from poolbench.own_model.shifts import STEPS, window


def windowed(passes: Passes, remedies: Sequence[Remedy]) -> list[Answers]:
    """Return the answers of remedies at test time at the centre and after each of the eight steps.

    A remedy sees the crops around a position: for a window of 3 those up to a pixel away, for one of 2 the crop itself
    and those a pixel further down and right. Positions and remedies share crops; each crop is classified once.
    """
    starts = {remedy.window: -1 - (remedy.window - 1) // 2 for remedy in remedies}
    first = min(starts.values())
    offsets = range(first, max(start + window + 2 for window, start in starts.items()))
    changes = [window(passes.size, dy, dx) for dy in offsets for dx in offsets]
    parts: list[list[Answers]] = [[] for _ in remedies]
    for number, larger in passes.batches():
        logits = torch.stack([passes.logits(change(larger, number)) for change in changes])
        grid = logits.unflatten(0, (len(offsets), len(offsets)))
        for remedy, found in zip(remedies, parts, strict=True):
            side = slice(starts[remedy.window] - first, starts[remedy.window] - first + remedy.window + 2)
            # (positions, positions, n, outputs, window * window)
            seen = grid[side, side].unfold(0, remedy.window, 1).unfold(1, remedy.window, 1).flatten(-2)
            found.append(answers_of(_ordered(_combined(seen, remedy))))
    return [joined(found) for found in parts]


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
