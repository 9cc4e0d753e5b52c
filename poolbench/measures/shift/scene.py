"""A stamp on a canvas in front of a network, evaluated at chosen positions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from poolbench.recording import batch_size, outputs

Positions = list[tuple[int, int]]
Progress = Callable[[int, int], None]


class Scene:
    """Outputs of a network with a stamp (c, sh, sw) centred at positions (y, x) of a canvas (c, h, w).

    Each position is evaluated once. After every batch ``progress(done, total)`` is called with the number
    of forward passes so far and ``total``, the expected number, which the caller may raise.
    """

    def __init__(self, model: nn.Module, stamp: Tensor, canvas: Tensor, total: int, progress: Progress | None) -> None:
        self.model, self.stamp, self.canvas = model, stamp, canvas
        self.total, self.progress = total, progress
        self.known: dict[tuple[int, int], Tensor] = {}

    def at(self, positions: Positions) -> Tensor:
        """Return the outputs (positions, outputs)."""
        new = [position for position in dict.fromkeys(positions) if position not in self.known]
        size = batch_size(self.canvas[None])
        for start in range(0, len(new), size):
            part = new[start : start + size]
            self.known.update(zip(part, outputs(self.model, self.paste(part)), strict=True))
            if self.progress is not None:
                self.progress(len(self.known), self.total)
        return torch.stack([self.known[position] for position in positions])

    def missing(self, positions: Positions) -> int:
        """Return how many of the positions have not been evaluated yet."""
        return len(set(positions) - self.known.keys())

    def block(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return the outputs (rows, columns, outputs) at all pairs of a row and a column."""
        return self.at(pairs(rows, columns)).view(len(rows), len(columns), -1)

    def lines(self, dim: int, along: Tensor, across: Tensor) -> Tensor:
        """Return the outputs (along, across, outputs); ``along`` are rows if ``dim`` is 0, columns if it is 1."""
        return self.block(along, across) if dim == 0 else self.block(across, along).transpose(0, 1)

    def paste(self, positions: Positions) -> Tensor:
        """Return one canvas per position (positions, c, h, w), with the stamp cut off at the border."""
        above, left = self.stamp.shape[-2] // 2, self.stamp.shape[-1] // 2
        canvases = self.canvas.repeat(len(positions), 1, 1, 1)
        for canvas, (y, x) in zip(canvases, positions, strict=True):
            target = canvas[:, max(0, y - above) : y + above + 1, max(0, x - left) : x + left + 1]
            top, start = max(0, above - y), max(0, left - x)
            target.copy_(self.stamp[:, top : top + target.shape[1], start : start + target.shape[2]])
        return canvases


def pairs(rows: Tensor, columns: Tensor) -> Positions:
    """Return all (y, x) of rows (r,) and columns (c,), row by row."""
    return [(y, x) for y in rows.tolist() for x in columns.tolist()]
