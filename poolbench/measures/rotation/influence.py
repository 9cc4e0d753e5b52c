"""Standard errors of V over the images, by its influence function."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

KEPT = 2**27  # activations: 512 MB in float32


@dataclass
class Kept:
    """Activations of every ``step``-th image, in chunks (angles, images, units); more of them double the step."""

    capacity: int = KEPT
    step: int = 1
    seen: int = 0
    chunks: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        """Keep activations (angles, b, units) of the next images."""
        first = -self.seen % self.step
        self.seen += values.shape[1]
        self.chunks.append(values[:, first :: self.step].clone())
        while sum(chunk.numel() for chunk in self.chunks) > self.capacity and self.images > 2:
            # The kept images are numbers 0, step, 2 step, ...: every second one remains.
            starts, count = [], 0
            for chunk in self.chunks:
                starts.append(count % 2)
                count += chunk.shape[1]
            self.chunks = [chunk[:, start::2].clone() for chunk, start in zip(self.chunks, starts, strict=True)]
            self.step *= 2

    @property
    def images(self) -> int:
        """Number of images that are kept."""
        return sum(chunk.shape[1] for chunk in self.chunks)

    def units(self, columns: slice) -> Tensor:
        """Return the activations (angles, images, units) of some units, float64."""
        return torch.cat([chunk[..., columns] for chunk in self.chunks], dim=1).double()


def influence(values: Tensor, tv: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Return the influence of each image on V = TV / SV of each unit, (images, units).

    ``values`` (angles, images, units); of all images: ``tv`` (units,), and the ``means`` and standard
    ``deviations`` (angles, units) at each angle. V changes by about influence / n when an image is added to n
    others. TV is a mean over images of the deviation s over the angles, so an image moves it by s - TV; a standard
    deviation d over images with mean m moves by ((a - m)^2 - d^2) / 2 d (Hampel 1974), and SV by the mean of that
    over the angles. NaN where V is not finite.
    """
    sv = deviations.mean(dim=0)
    squares = (values - means[:, None]).square_()
    moved = (squares / deviations[:, None] - deviations[:, None]) / 2
    moved = moved.where(deviations[:, None] > 0, 0).mean(dim=0)
    found: Tensor = (values.std(dim=0) - tv - tv / sv * moved) / sv
    return found


def standard_errors(
    kept: Kept, sizes: list[int], tv: Tensor, means: Tensor, deviations: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the standard errors over the images of V of each unit, and of the mean V of its layer, (units,) each.

    ``sizes``: the number of units of each layer, in order; the others as in :func:`influence`. A layer's mean is
    over its finite V; its units see the same images, so their errors do not average out.
    """
    units, layers, start = [], [], 0
    for size in sizes:
        columns = slice(start, start + size)
        moved = influence(kept.units(columns), tv[columns], means[:, columns], deviations[:, columns])
        units.append(moved.std(dim=0) / kept.seen**0.5)
        finite = moved[:, moved.isfinite().all(dim=0)]
        layers.append((finite.mean(dim=1).std() / kept.seen**0.5).expand(size))
        start += size
    return torch.cat(units), torch.cat(layers)
