"""Heads (global pools), (b, c, h, w) -> (b, c * feature_multiplier); attention heads are in attention.py."""

from __future__ import annotations

from math import ceil, log
from typing import ClassVar

import torch
from torch import Tensor, nn

from poolbench.core import Options, UsageError
from poolbench.pooling.base import Head, Tunable
from poolbench.pooling.means import root
from poolbench.pooling.windows import median, widen
from poolbench.registry import heads
from poolbench.search import Interval

Size = tuple[int, int] | None


def known_size(name: str, size: Size) -> tuple[int, int]:
    """Return the size (h, w) of the map; raise UsageError if it is None."""
    if size is None:
        raise UsageError(f"head '{name}' needs the size (h, w) of the map; give size=(h, w)")
    return size


@heads.register(
    "avg", reference="Lin et al. 2014 (Network in Network)", shift_equivariant=True, learnable=False, random=False
)
class GlobalAvg(Head):
    """Mean over all positions (GAP)."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


@heads.register("max", reference="Oquab et al. 2015", shift_equivariant=True, learnable=False, random=False)
class GlobalMax(Head):
    """Maximum over all positions (GMP); the gradient reaches one position per channel."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(-2, -1))


@heads.register("avgmax", reference="timm SelectAdaptivePool2d", shift_equivariant=True, learnable=False, random=False)
class GlobalAvgMax(Head):
    """Average of mean and maximum over all positions."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(-2, -1)) + x.amax(dim=(-2, -1))) / 2


@heads.register(
    "catavgmax", reference="timm SelectAdaptivePool2d", shift_equivariant=True, learnable=False, random=False
)
class GlobalCatAvgMax(Head):
    """Concatenation of all means and all maxima, (b, c, h, w) -> (b, 2c)."""

    feature_multiplier = 2

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean(dim=(-2, -1)), x.amax(dim=(-2, -1))), 1)


@heads.register("gem", reference="Radenovic et al. 2018", shift_equivariant=True, learnable=True, random=False)
class GlobalGem(Head):
    """Generalised mean (mean x^p)^(1/p) over all positions, with one learned p.

    p = 1 gives avg, large p approaches max. Meant for non-negative features, as after a ReLU: inputs are clamped to
    at least ``eps``, so the negative part of a class map is lost and gets no gradient. Computed in float32 or
    better, as x^p overflows half precision. Raises UsageError for an initial p <= 0.
    """

    tunable: ClassVar[Tunable] = {"p": Interval(1, 10, log=True)}

    def __init__(self, channels: int, size: Size = None, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if p <= 0:
            raise UsageError(f"head 'gem' needs a power p > 0, got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        clamped = widen(x).clamp(min=self.eps)
        # Dividing by the maximum keeps (x / max)^p in [0, 1] for every p.
        top = clamped.detach().amax(dim=(-2, -1), keepdim=True)
        mean = (clamped / top).pow(self.p).mean(dim=(-2, -1))
        return (mean.pow(1 / self.p) * top.flatten(1)).to(x.dtype)


@heads.register("l2", reference="Hyvärinen & Köster 2007", shift_equivariant=True, learnable=False, random=False)
class GlobalL2(Head):
    """Root mean square over all positions.

    Meant for non-negative features: it drops the sign, so strong evidence against a class in a class map counts as
    evidence for it.
    """

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return root(widen(x).square().mean(dim=(-2, -1))).to(x.dtype)


@heads.register("lse", reference="Pinheiro & Collobert 2015", shift_equivariant=True, learnable=True, random=False)
class GlobalLse(Head):
    """Log-mean-exp (1/r) log(mean exp(r x)) over all positions, with one learned r > 0.

    Approaches avg for small r and max for large r. Defined for signed maps (the source pools class maps), but the
    initial r = 10 fits small values, such as normalised non-negative features: where values differ by more than
    about 1 it is a maximum. Raises UsageError for an initial r <= 0.
    """

    tunable: ClassVar[Tunable] = {"r": Interval(0.1, 30, log=True)}

    def __init__(self, channels: int, size: Size = None, r: float = 10.0) -> None:
        super().__init__()
        if r <= 0:
            raise UsageError(f"head 'lse' needs a sharpness r > 0, got {r}; its limit at 0 is head 'avg'")
        # Learning log(r) keeps r positive.
        self.log_r = nn.Parameter(torch.tensor(log(r)))

    def forward(self, x: Tensor) -> Tensor:
        r = self.log_r.exp()
        wide = widen(x)
        # Subtracting the maximum prevents overflow; expm1 and log1p prevent cancellation for small r.
        top = wide.detach().amax(dim=(-2, -1), keepdim=True)
        mean = torch.expm1(r * (wide - top)).mean(dim=(-2, -1))
        return (top.flatten(1) + torch.log1p(mean) / r).to(x.dtype)


@heads.register("top_k", reference="Durand et al. 2016 (WELDON)", shift_equivariant=True, learnable=False, random=False)
class GlobalTopK(Head):
    """Mean of the k largest values of each channel; k = 1 is max, k = h * w is avg.

    Without k, as many as make up the ``share`` of all positions, rounded up. Raises UsageError for k < 1, for maps with
    fewer than k positions, and for a share outside of (0, 1].
    """

    tunable: ClassVar[Tunable] = {"share": Interval(0.01, 1, log=True)}

    def __init__(self, channels: int, size: Size = None, k: int | None = None, share: float = 0.25) -> None:
        super().__init__()
        if k is not None and k < 1:
            raise UsageError(f"head 'top_k' needs k >= 1, got {k}")
        if not 0 < share <= 1:
            raise UsageError(f"head 'top_k' needs a share above 0 and up to 1, got {share}")
        self.k, self.share = k, share

    @classmethod
    def searched(cls, options: Options) -> Tunable:
        # With a number of positions the share counts for nothing.
        return cls.tunable if options["k"] is None else {}

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)
        n = positions.shape[2]
        # A share such as .1 of 30 is slightly more than 3 in floating point.
        k = ceil(self.share * n - 1e-9) if self.k is None else self.k
        if k > n:
            raise UsageError(f"head 'top_k' cannot take the {k} largest of {n} positions; give a k up to {n}")
        return positions.topk(k, dim=2, sorted=False).values.mean(2)


@heads.register("median", reference="Tukey 1977; control", shift_equivariant=True, learnable=False, random=False)
class GlobalMedian(Head):
    """Median over all positions; the mean of the middle two of an even number of values."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)
        return median(positions, torch.tensor(positions.shape[2], device=x.device))


@heads.register(
    "softmax_weighted",
    reference="McFee et al. 2018 (AutoPool, alpha = 1)",
    shift_equivariant=True,
    learnable=False,
    random=False,
)
class GlobalSoftmax(Head):
    """Mean over all positions, weighted by the softmax of the channel's values."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        positions = widen(x).flatten(2)
        return (positions.softmax(2) * positions).sum(2).to(x.dtype)


@heads.register(
    "flatten",
    reference="LeCun et al. 1998; position-aware control",
    shift_equivariant=False,
    learnable=False,
    random=False,
)
class Flatten(Head):
    """Every position as a separate feature, (b, c, h, w) -> (b, c * h * w); a control without any invariance."""

    needs_size = True

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        height, width = known_size("flatten", size)
        self.feature_multiplier = height * width

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
