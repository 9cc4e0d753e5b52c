"""Running statistics of many units over images and angles, from chunks that are seen once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poolbench.measures.rotation.compiled import compiled_sums

# Activations that the sums pass over several times in one go: few enough for a cache, many enough for a call.
BLOCK = 2**20
# So many images of a class are summed in the activations' own precision, then carried over to float64.
RUN = 256


class Workspace:
    """One buffer for the differences of all layers: fresh memory for each would cost more than the sums."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0)

    def like(self, values: Tensor) -> Tensor:
        """Return an uninitialised tensor of the same shape; the next call reuses its memory."""
        if self.buffer.dtype != values.dtype or self.buffer.device != values.device:
            self.buffer = values.new_empty(0)
        if self.buffer.numel() < values.numel():
            self.buffer = values.new_empty(values.numel())
        return self.buffer[: values.numel()].view(values.shape)


@dataclass
class Spread:
    """Count, mean and sum of squared deviations over images (float64), mergeable (Chan et al. 1983)."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def merge(self, count: int, mean: Tensor, squares: Tensor) -> None:
        """Take in another set of images; its tensors are used up."""
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        step = mean.sub_(self.mean)
        self.squares.add_(squares).addcmul_(step, step, value=self.count * count / total)
        self.mean.add_(step, alpha=count / total)
        self.count = total

    def deviation(self) -> Tensor:
        """Return the standard deviation (ddof 1) over the images."""
        return (self.squares / (self.count - 1)).sqrt()


class Moments:
    """TV and SV of units over the same angles of images that come class by class.

    Differences are taken from actual activations, the image's own at the first angle for TV and the
    class's first image at the same angle for SV: sums of their squares lose nothing to the size of the
    activations, and a unit that never moves has exactly zero. Holds about 44 bytes per unit and angle
    for float32 activations, whatever the number of images.
    """

    def __init__(self, angles: int, workspace: Workspace) -> None:
        self.angles, self.workspace = angles, workspace
        self.total, self.own = Spread(), Spread()  # of all classes, of the class that is coming in
        self.run = 0
        self.shift = self.sums = self.squares = self.ones = torch.empty(0)
        self.tv = self.tv_squares = self.own_tv = self.deviations = torch.empty(0)
        self.by_class: list[Tensor] = []

    def update(self, values: Tensor) -> None:
        """Take in activations (angles, b, units) of images of the class that is coming in."""
        angles, count, units = values.shape
        if self.total.count == self.own.count == self.run == 0:
            self.own_tv, self.tv, self.tv_squares = values.new_zeros((3, units)).double()
        if self.run == 0:
            self.shift = values[:, :1].clone(memory_format=torch.contiguous_format)
            self.sums, self.squares = torch.zeros_like(self.shift), torch.zeros_like(self.shift)
            self.deviations = values.new_zeros(2, units)
        if self.ones.shape[-1] < max(angles, count):
            self.ones = values.new_ones(angles, 1, max(angles, count))
        if add := compiled_sums(values):
            add(values.contiguous(), self.shift, self.sums, self.squares, self.deviations)
        else:
            for columns in self._blocks(values):
                self._add(values[..., columns], columns)
        self.run += count
        if self.run >= RUN:
            self._carry_over()

    def _blocks(self, values: Tensor) -> Iterator[slice]:
        units = values.shape[2]
        width = max(256, BLOCK // (values.shape[0] * values.shape[1])) if values.device.type == "cpu" else units
        for start in range(0, units, width):
            yield slice(start, start + width)

    def _add(self, values: Tensor, columns: slice) -> None:
        # In place and by matrix products with ones: half the time of sums along an outer dimension.
        angles, count, units = values.shape
        difference = self.workspace.like(values)
        over_images, over_angles = self.ones[:, :, :count], self.ones[0, :, :angles]
        torch.sub(values, self.shift[..., columns], out=difference)
        self.sums[..., columns].baddbmm_(over_images, difference)
        self.squares[..., columns].baddbmm_(over_images, difference.square_())
        torch.sub(values, values[:1], out=difference)
        sums = over_angles @ difference.view(angles, -1)
        squares = over_angles @ difference.square_().view(angles, -1)
        squares.addcmul_(sums, sums, value=-1 / angles).clamp_(min=0)
        all_images = self.ones[0, :, :count]
        self.deviations[1:, columns].addmm_(all_images, squares.view(count, units))
        self.deviations[:1, columns].addmm_(all_images, squares.sqrt_().view(count, units))

    def _carry_over(self) -> None:
        if self.run:
            sums, squares = self.sums[:, 0].double(), self.squares[:, 0].double()
            squares.addcmul_(sums, sums, value=-1 / self.run).clamp_(min=0)
            self.own.merge(self.run, sums.div_(self.run).add_(self.shift[:, 0]), squares)
            self.own_tv += self.deviations[0].double() / (self.angles - 1) ** 0.5
            self.tv_squares += self.deviations[1].double() / (self.angles - 1)
            self.run = 0

    def close_class(self) -> None:
        """End the class that is coming in: its V counts for the stratified measure."""
        self._carry_over()
        count = self.own.count
        # A class with a single image has no spread between images.
        sv = self.own.deviation().mean(dim=0) if count > 1 else torch.nan
        self.by_class.append(self.own_tv / count / sv)
        self.tv += self.own_tv
        self.own_tv = torch.zeros_like(self.tv)
        self.total.merge(count, self.own.mean, self.own.squares)
        self.own = Spread()

    def result(self) -> dict[str, Tensor]:
        """Return {column: (units,) float64} of all classes together, "classes" (classes, units) of each."""
        n = self.total.count
        tv, sv = self.tv / n, self.total.deviation().mean(dim=0)
        tv_se = ((self.tv_squares - n * tv.square()).clamp(min=0) / (n - 1) / n).sqrt()
        v = tv / sv
        # SV enters with the error of a normal value's standard deviation, as if independent of TV.
        v_se = v * ((tv_se / tv).square() + 1 / (2 * (n - 1))).sqrt()
        classes = torch.stack(self.by_class)
        finite = classes.isfinite()
        stratified = classes.where(finite, 0).sum(dim=0) / finite.sum(dim=0)
        return {
            "TV": tv, "SV": sv, "V": v, "TV_se": tv_se, "V_se": v_se, "V_stratified": stratified,
            "dead": (tv == 0) & (sv == 0), "classes": classes,
        }  # fmt: skip
