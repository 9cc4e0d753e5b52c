"""TV and SV of many units, accumulated from chunks of activations that are seen once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poolbench.measures.rotation.influence import Kept, standard_errors

BLOCK = 2**20  # activations summed at a time on a CPU: they stay in its cache over the several passes of a sum
RUN = 256  # images summed in the activations' precision before the sums are carried over to float64


class Workspace:
    """One buffer for the differences of all layers: allocating memory for each would take longer than the sums."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0)

    def like(self, values: Tensor) -> Tensor:
        """Return an uninitialised tensor of the same shape and type; the next call reuses its memory."""
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
        """Add another set of images. Its tensors are overwritten."""
        if self.count == 0:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        step = mean.sub_(self.mean)
        self.squares.add_(squares).addcmul_(step, step, value=self.count * count / total)
        self.mean.add_(step, alpha=count / total)
        self.count = total

    def deviation(self) -> Tensor:
        """Return the standard deviation over the images (ddof 1)."""
        return (self.squares / (self.count - 1)).sqrt()


class Moments:
    """TV and SV of units over angles and images; images come class by class, each at the same angles.

    Sums are of differences from actual activations: from the image's own at the first angle for TV, from
    those of the run's first image at the same angle for SV. So no digits are lost to large activations, and
    a unit that never changes has exactly zero. Memory: about 44 bytes per unit and angle for float32
    activations, whatever the number of images. With ``errors`` activations are kept as well, up to 512 MB of
    them, for the standard errors of V.
    """

    def __init__(self, angles: int, workspace: Workspace, errors: bool = False) -> None:
        self.angles, self.workspace = angles, workspace
        self.kept = Kept() if errors else None
        self.total, self.class_total = Spread(), Spread()  # over all closed classes, over the current class
        self.run = 0  # images in the current run
        # Of the run: reference activations (angles, 1, units), and sums of differences and of their squares.
        self.origin = self.sums = self.squares = self.ones = torch.empty(0)
        # Sums over images, (units,): standard deviations over angles, their squares, and the same of the class.
        self.tv = self.tv_squares = self.class_tv = torch.empty(0)
        # Of the run, (2, units): roots of the sums of squares over angles, and those sums.
        self.deviations = torch.empty(0)
        self.by_class: list[Tensor] = []

    def update(self, values: Tensor) -> None:
        """Add activations (angles, b, units) of images of the current class."""
        angles, count, units = values.shape
        if self.total.count == self.class_total.count == self.run == 0:
            self.class_tv, self.tv, self.tv_squares = values.new_zeros((3, units)).double()
        if self.run == 0:
            self.origin = values[:, :1].clone(memory_format=torch.contiguous_format)
            self.sums, self.squares = torch.zeros_like(self.origin), torch.zeros_like(self.origin)
            self.deviations = values.new_zeros(2, units)
        if self.ones.shape[-1] < max(angles, count):
            self.ones = values.new_ones(angles, 1, max(angles, count))
        for columns in self._blocks(values):
            self._add(values[..., columns], columns)
        if self.kept is not None:
            self.kept.add(values)
        self.run += count
        if self.run >= RUN:
            self._carry_over()

    def _blocks(self, values: Tensor) -> Iterator[slice]:
        """Yield slices of the units: blocks on a CPU, all at once on a GPU."""
        units = values.shape[2]
        width = max(256, BLOCK // (values.shape[0] * values.shape[1])) if values.device.type == "cpu" else units
        for start in range(0, units, width):
            yield slice(start, start + width)

    def _add(self, values: Tensor, columns: slice) -> None:
        # In place, and summed by matrix products with ones: twice as fast as torch.sum along an outer dimension.
        angles, count, units = values.shape
        difference = self.workspace.like(values)
        over_images, over_angles = self.ones[:, :, :count], self.ones[0, :, :angles]
        torch.sub(values, self.origin[..., columns], out=difference)
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
        """Add the sums of the run to those of the class, in float64."""
        if self.run:
            sums, squares = self.sums[:, 0].double(), self.squares[:, 0].double()
            squares.addcmul_(sums, sums, value=-1 / self.run).clamp_(min=0)
            self.class_total.merge(self.run, sums.div_(self.run).add_(self.origin[:, 0]), squares)
            self.class_tv += self.deviations[0].double() / (self.angles - 1) ** 0.5
            self.tv_squares += self.deviations[1].double() / (self.angles - 1)
            self.run = 0

    def close_class(self) -> None:
        """End the current class and keep its V for the stratified measure."""
        self._carry_over()
        count = self.class_total.count
        # A single image has no standard deviation over images.
        sv = self.class_total.deviation().mean(dim=0) if count > 1 else torch.nan
        self.by_class.append(self.class_tv / count / sv)
        self.tv += self.class_tv
        self.class_tv = torch.zeros_like(self.tv)
        self.total.merge(count, self.class_total.mean, self.class_total.squares)
        self.class_total = Spread()

    def result(self, sizes: Sequence[int] = ()) -> dict[str, Tensor]:
        """Return {column: (units,) float64} over all classes, and "classes": V within each class (classes, units).

        ``sizes``: the number of units of each layer (default: one layer). The standard errors of V are NaN unless
        activations were kept.
        """
        n = self.total.count
        deviations = self.total.deviation()
        tv, sv = self.tv / n, deviations.mean(dim=0)
        tv_se = ((self.tv_squares - n * tv.square()).clamp(min=0) / (n - 1) / n).sqrt()
        v_se = layer_se = torch.full_like(tv, torch.nan)
        if self.kept is not None:
            sizes = list(sizes) or [len(tv)]
            v_se, layer_se = standard_errors(self.kept, sizes, tv, self.total.mean, deviations)
        classes = torch.stack(self.by_class)
        finite = classes.isfinite()
        stratified = classes.where(finite, 0).sum(dim=0) / finite.sum(dim=0)
        return {
            "TV": tv, "SV": sv, "V": tv / sv, "TV_se": tv_se, "V_se": v_se, "V_layer_se": layer_se,
            "V_stratified": stratified, "dead": (tv == 0) & (sv == 0), "classes": classes,
        }  # fmt: skip
