"""Global pools: (b, c, h, w) -> (b, c * feature_multiplier)."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.means import root
from poolbench.pooling.windows import median, widen
from poolbench.registry import heads

Size = tuple[int, int] | None


class Head(nn.Module):
    """A global pool; ``feature_multiplier`` says how many features leave per channel."""

    feature_multiplier = 1


def known_size(name: str, size: Size) -> tuple[int, int]:
    """Return the size (h, w) of the map, which a head that depends on position needs; UsageError without."""
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
    """Maximum over all positions (GMP); its gradient reaches one position per channel."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(-2, -1))


@heads.register("avgmax", reference="timm SelectAdaptivePool2d", shift_equivariant=True, learnable=False, random=False)
class GlobalAvgMax(Head):
    """Half the sum of mean and maximum."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(-2, -1)) + x.amax(dim=(-2, -1))) / 2


@heads.register(
    "catavgmax", reference="timm SelectAdaptivePool2d", shift_equivariant=True, learnable=False, random=False
)
class GlobalCatAvgMax(Head):
    """Mean and maximum side by side: all means, then all maxima."""

    feature_multiplier = 2

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x.mean(dim=(-2, -1)), x.amax(dim=(-2, -1))), 1)


@heads.register("gem", reference="Radenovic et al. 2018", shift_equivariant=True, learnable=True, random=False)
class GlobalGem(Head):
    """Generalised mean (mean x^p)^(1/p) with one learned p, from 3; p = 1 is avg, large p is max.

    Inputs are clamped at ``eps`` from below, so it belongs behind a ReLU; on signed inputs it sees the
    positive part only. Computed in float32 or better: x^p overflows half precision.
    """

    def __init__(self, channels: int, size: Size = None, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        if p <= 0:
            raise UsageError(f"head 'gem' needs a power p > 0, got {p}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        clamped = widen(x).clamp(min=self.eps)
        # Divide by the maximum first: (x / max)^p stays in [0, 1] for every p.
        top = clamped.detach().amax(dim=(-2, -1), keepdim=True)
        mean = (clamped / top).pow(self.p).mean(dim=(-2, -1))
        return (mean.pow(1 / self.p) * top.flatten(1)).to(x.dtype)


@heads.register("l2", reference="Hyvärinen & Köster 2007", shift_equivariant=True, learnable=False, random=False)
class GlobalL2(Head):
    """Root mean square over all positions."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return root(widen(x).square().mean(dim=(-2, -1))).to(x.dtype)


@heads.register("lse", reference="Pinheiro & Collobert 2015", shift_equivariant=True, learnable=True, random=False)
class GlobalLse(Head):
    """Log-mean-exp (1/r) log(mean exp(r x)) with one learned r > 0, from 10: avg for small r, max for large r."""

    def __init__(self, channels: int, size: Size = None, r: float = 10.0) -> None:
        super().__init__()
        if r <= 0:
            raise UsageError(f"head 'lse' needs a sharpness r > 0, got {r}; its limit at 0 is head 'avg'")
        # Learned as a logarithm, r stays positive.
        self.log_r = nn.Parameter(torch.tensor(log(r)))

    def forward(self, x: Tensor) -> Tensor:
        r = self.log_r.exp()
        wide = widen(x)
        # Measured from the maximum nothing overflows, and with expm1 and log1p nothing cancels for small r.
        top = wide.detach().amax(dim=(-2, -1), keepdim=True)
        mean = torch.expm1(r * (wide - top)).mean(dim=(-2, -1))
        return (top.flatten(1) + torch.log1p(mean) / r).to(x.dtype)


@heads.register(
    "top_k", reference="Zhou et al. 2016 (k-max pooling)", shift_equivariant=True, learnable=False, random=False
)
class GlobalTopK(Head):
    """Mean of the k largest values of each channel, by default of a quarter of them; k = 1 is max, k = h w is avg."""

    def __init__(self, channels: int, size: Size = None, k: int | None = None) -> None:
        super().__init__()
        if k is not None and k < 1:
            raise UsageError(f"head 'top_k' needs k >= 1, got {k}")
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)
        n = positions.shape[2]
        k = -(-n // 4) if self.k is None else self.k
        if k > n:
            raise UsageError(f"head 'top_k' cannot take the {k} largest of {n} positions; give a k up to {n}")
        return positions.topk(k, dim=2, sorted=False).values.mean(2)


@heads.register("median", reference="Tukey 1977; control", shift_equivariant=True, learnable=False, random=False)
class GlobalMedian(Head):
    """Median over all positions; of an even number of values the mean of the middle two."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        positions = x.flatten(2)
        return median(positions, torch.tensor(positions.shape[2], device=x.device))


@heads.register(
    "softmax_weighted", reference="Stergiou et al. 2021, global", shift_equivariant=True, learnable=False, random=False
)
class GlobalSoftmax(Head):
    """Mean over all positions, weighted by the softmax of the channel's own values."""

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
    """Every position is a feature of its own; the control that is not invariant to anything."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        height, width = known_size("flatten", size)
        self.feature_multiplier = height * width

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
