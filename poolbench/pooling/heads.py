"""Global pools: (b, c, h, w) -> (b, c * feature_multiplier)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.registry import heads

Size = tuple[int, int] | None


class Head(nn.Module):
    """A global pool; ``feature_multiplier`` says how many features leave per channel."""

    feature_multiplier = 1


@heads.register("avg", reference="Lin et al. 2014 (Network in Network)")
class GlobalAvg(Head):
    """Mean over all positions (GAP)."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(-2, -1))


@heads.register("max", reference="Oquab et al. 2015")
class GlobalMax(Head):
    """Maximum over all positions (GMP); its gradient reaches one position per channel."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(-2, -1))


@heads.register("avgmax", reference="timm SelectAdaptivePool2d")
class GlobalAvgMax(Head):
    """Half the sum of mean and maximum."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean(dim=(-2, -1)) + x.amax(dim=(-2, -1))) / 2


@heads.register("gem", reference="Radenovic et al. 2018", learnable=True)
class GlobalGem(Head):
    """Generalised mean (mean x^p)^(1/p) with one learned p, from 3; p = 1 is avg, large p is max.

    Inputs are clamped at ``eps`` from below, so it belongs behind a ReLU; on signed inputs it sees the
    positive part only. Computed in float32 or better: x^p overflows half precision.
    """

    def __init__(self, channels: int, size: Size = None, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            wide = x.to(torch.promote_types(x.dtype, torch.float32)).clamp(min=self.eps)
            # Divide by the maximum first: (x / max)^p stays in [0, 1] for every p.
            top = wide.detach().amax(dim=(-2, -1), keepdim=True)
            mean = (wide / top).pow(self.p).mean(dim=(-2, -1))
            return (mean.pow(1 / self.p) * top.flatten(1)).to(x.dtype)


@heads.register("flatten", reference="LeCun et al. 1998; position-aware control")
class Flatten(Head):
    """Every position is a feature of its own; the control that is not invariant to anything."""

    def __init__(self, channels: int, size: Size = None) -> None:
        super().__init__()
        if size is None:
            raise UsageError("head 'flatten' needs the size (h, w) of the map; give size=(h, w)")
        self.feature_multiplier = size[0] * size[1]

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
