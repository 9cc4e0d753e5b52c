"""Polyphase sampling: keep one of the stride^2 interleaved grids of a map, chosen by its content.

With a fixed grid the output depends on the position of the object modulo the stride. A grid chosen by content
moves with the object: with circular padding and sides that are multiples of the stride, every circular shift of
the input shifts the output (Chaman & Dokmanic 2021).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.base import Pool, Tunable
from poolbench.pooling.lowpass import BinomialBlur, MaxBlur, padded_dense_max
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import widen
from poolbench.registry import pools
from poolbench.search import Interval, OneOf


class PolyphasePool(Pool):
    """(b, c, h, w) -> (b, c, h/stride, w/stride): ``take(prepare(x), choose(prepare(x)))``.

    ``before`` is a module (b, c, h, w) -> (b, c, h, w) that ``prepare`` applies; None leaves the map as it is.
    Component i * stride + j of a map x is x[..., i::stride, j::stride]. The three steps are separate methods so
    that the skip connection of a residual block can use the phase that its main branch chose::

        main, skip = pool.prepare(main), skip_pool.prepare(skip)
        phase = pool.choose(main)
        out = pool.take(main, phase) + skip_pool.take(skip, phase)
    """

    needs_divisible_size = True
    name: str

    def __init__(self, stride: int, before: nn.Module | None = None) -> None:
        super().__init__()
        self.stride, self.before = stride, before

    def score(self, components: Tensor) -> Tensor:
        """Return scores (b, stride^2) of components (b, c, stride^2, h/stride, w/stride); the highest is chosen.

        A score must not change when its component is rolled.
        """
        raise NotImplementedError

    def prepare(self, x: Tensor) -> Tensor:
        """Return x (b, c, h, w) filtered: the input of ``choose`` and ``take``."""
        return x if self.before is None else self.before(x)

    def choose(self, x: Tensor) -> Tensor:
        """Return one-hot weights (b, stride^2) of the components of a prepared map."""
        with torch.no_grad(), _full_precision(x.device):
            best = _winners(self.score(self.components(x)), x, self.stride)
        return F.one_hot(best, self.stride**2).to(x.dtype)

    def take(self, x: Tensor, phase: Tensor) -> Tensor:
        """Return the weighted sum (b, c, h/stride, w/stride) of the components of a prepared map."""
        return (self.components(x) * phase[:, None, :, None, None].to(x.dtype)).sum(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prepare(x)
        return self.take(x, self.choose(x))

    def follower(self) -> PolyphasePool:
        """Return the pool of a skip connection: the same filter, applied to the phase that this pool chose."""
        return self

    def components(self, x: Tensor) -> Tensor:
        """Return all components, (b, c, stride^2, h/stride, w/stride); raise UsageError where their sizes differ."""
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise UsageError(
                f"pool '{self.name}' needs a map whose sides its stride {self.stride} divides, got {height}x{width}; "
                "use images of 32x32 or fewer halvings"
            )
        components: Tensor = F.pixel_unshuffle(x, self.stride).unflatten(1, (x.shape[1], self.stride**2))
        return components


def _full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context without autocast, which devices such as "meta" do not have."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _winners(scores: Tensor, x: Tensor, stride: int) -> Tensor:
    """Return the index (b,) of the largest of scores (b, stride^2); ties are broken by the content of x (b, c, h, w).

    Taking the lowest index would break equivariance: the components of a mirror-symmetric image have equal norms
    in pairs, and their order depends on the position of the image.
    """
    # Sums and convolutions of a rolled map differ in their last bits.
    tolerance = 1e-12 if x.dtype == torch.float64 else 1e-5
    tied = _largest(scores, tolerance)
    # Fingerprints are computed without ties, too: a branch on values could not be exported, nor run under vmap.
    best = _largest(_fingerprints(x, stride) * tied, tolerance)
    return best.to(torch.uint8).argmax(1)


def _largest(scores: Tensor, tolerance: float) -> Tensor:
    """Return a mask of the scores (b, n) that equal the largest of their row, up to a relative tolerance."""
    return scores >= scores.amax(1, keepdim=True) - tolerance * scores.abs().amax(1, keepdim=True)


def _fingerprints(x: Tensor, stride: int) -> Tensor:
    """Return a positive number per component of x (b, c, h, w), (b, stride^2), that a roll of x does not change.

    It is the mean of exp(k . roll(z, -y)) over the pixels y of the component, where z (b, h, w) is a fixed weighted
    sum of the channels and k a fixed image. Rolling x only reorders the terms of the mean. Exponentials with
    different exponents are linearly independent as functions of k, so for almost every k two components have equal
    fingerprints only if one set of rolled images equals the other. Then the image is periodic and both
    components are equal up to a roll, so either may be kept.

    k is an outer product of a column and a row. Two images that differ also differ as bilinear forms, so the
    argument holds for almost every such k, and the products with all rolled images are two matrix products. Column
    and row differ, since with equal ones an image and its transpose would have equal fingerprints.
    """
    z = torch.einsum("bchw,c->bhw", widen(x), _waves(torch.arange(x.shape[1], device=x.device)).to(widen(x).dtype))
    z = z.double()
    centred = z - z.mean(dim=(-2, -1), keepdim=True)
    norm = centred.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    down, across = _circulant(x.shape[-2], 0.61, x.device), _circulant(x.shape[-1], 2.17, x.device)
    views = down @ (centred / norm) @ across.mT
    return F.pixel_unshuffle(views[:, None], stride).exp().mean(dim=(-2, -1))


def _circulant(size: int, start: float, device: torch.device) -> Tensor:
    """Return a fixed matrix (size, size) in float64, row i its first row rolled by i; another for each ``start``."""
    index = torch.arange(size, device=device)
    return _waves((index - index[:, None]).remainder(size), start)


def _waves(index: Tensor, start: float = 0.61) -> Tensor:
    """Return fixed numbers in float64 of mean square about 1, without period or symmetry, at these integers."""
    index = index.double()
    return 2**0.5 * torch.cos(start + 1.93 * index + 2.39 * index.square())


class DenseMaxFilter(nn.Module):
    """Maximum over 2x2 with stride 1, (b, c, h, w) -> (b, c, h, w).

    Chaman & Dokmanic 2021 and Rojas-Gomez et al. 2022 split max pooling into this and a polyphase sampling. Without
    it a polyphase pool stands for a strided convolution, not for max pooling.
    """

    def __init__(self, padding_mode: PaddingMode) -> None:
        super().__init__()
        self.padding_mode = padding_mode

    def forward(self, x: Tensor) -> Tensor:
        return padded_dense_max(x, self.padding_mode)


class LargestComponent(PolyphasePool):
    """The polyphase component with the largest L2 norm over all channels, after the filter ``before``."""

    def score(self, components: Tensor) -> Tensor:
        return widen(components).square().sum(dim=(1, 3, 4), dtype=torch.float64)


@pools.register("aps", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False)
class AdaptivePolyphase(LargestComponent):
    """The polyphase component with the largest L2 norm over all channels; in place of a stride."""

    name = "aps"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(stride)


@pools.register("aps_blur3", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False)
class BlurredAdaptivePolyphase(LargestComponent):
    """Binomial 3x3 low-pass, then the polyphase component with the largest L2 norm; in place of a stride."""

    name = "aps_blur3"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(stride, BinomialBlur(channels, 3, 1, padding_mode))


@pools.register("max_aps", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False)
class MaxAdaptivePolyphase(LargestComponent):
    """Maximum over 2x2 with stride 1, then the polyphase component with the largest L2 norm."""

    name = "max_aps"
    sampling = "aps"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(stride, DenseMaxFilter(padding_mode))


@pools.register(
    "max_aps_blur3", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False
)
class MaxBlurredAdaptivePolyphase(LargestComponent):
    """Maximum over 2x2 with stride 1, binomial 3x3 low-pass, then the component with the largest L2 norm."""

    name = "max_aps_blur3"
    sampling = "aps_blur3"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(stride, MaxBlur(channels, 3, 1, padding_mode))


@pools.register("lps", reference="Rojas-Gomez et al. 2022", shift_equivariant=True, learnable=True, random=True)
class LearnablePolyphase(PolyphasePool):
    """The polyphase component with the highest score of a small circular CNN; in place of a stride.

    In training the component is sampled by Gumbel-softmax at ``temperature`` (set the attribute to anneal it),
    with the straight-through gradient of the softmax. ``hard=False`` trains with the softmax-weighted sum of the
    components; eval mode always takes one. ``hidden`` is the number of channels of the CNN (None: as many as the
    map). Raises UsageError for a temperature <= 0.
    """

    trainable_in_eval = False
    tunable: ClassVar[Tunable] = {"temperature": Interval(0.1, 10, log=True), "hard": OneOf((True, False))}

    name = "lps"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "zeros",
        hidden: int | None = None,
        temperature: float = 1.0,
        hard: bool = True,
    ) -> None:
        super().__init__(stride)
        if temperature <= 0:
            raise UsageError(f"pool '{self.name}' needs a temperature > 0, got {temperature}")
        self.temperature, self.hard = temperature, hard
        hidden = hidden or channels
        # Circular for every padding mode of the network: a roll of the component must not change its score.
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, padding_mode="circular")
        # A bias would add the same to all scores.
        self.conv2 = nn.Conv2d(hidden, 1, 3, padding=1, padding_mode="circular", bias=False)

    def score(self, components: Tensor) -> Tensor:
        """Return the mean of conv-ReLU-conv over each component."""
        each = components.transpose(1, 2).flatten(0, 1).to(self.conv1.weight.dtype)
        scores: Tensor = self.conv2(F.relu(self.conv1(each))).mean(dim=(1, 2, 3)).unflatten(0, (-1, self.stride**2))
        return scores

    def follower(self) -> PolyphasePool:
        """Return a pool without the CNN, whose weights would never receive a gradient."""
        follower = PolyphasePool(self.stride, self.before)
        follower.name = self.name
        return follower

    def choose(self, x: Tensor) -> Tensor:
        """Return one-hot weights (b, stride^2); a softmax in training with ``hard=False``."""
        if not self.training:
            return super().choose(x)
        with _full_precision(x.device):
            scores = widen(self.score(self.components(x)))
            # Not F.gumbel_softmax, whose scatter has no rule for vmap: argmax of scores + Gumbel noise is a sample.
            noise = -torch.empty_like(scores).exponential_().log()
            soft = ((scores + noise) / self.temperature).softmax(1)
            if not self.hard:
                return soft.to(x.dtype)
            sampled = F.one_hot(soft.argmax(1), self.stride**2).to(soft.dtype)
            return (sampled - soft.detach() + soft).to(x.dtype)


@pools.register("max_lps", reference="Rojas-Gomez et al. 2022", shift_equivariant=True, learnable=True, random=True)
class MaxLearnablePolyphase(LearnablePolyphase):
    """Maximum over 2x2 with stride 1, then the polyphase component with the highest score of a small circular CNN.

    Options and errors are those of pool "lps".
    """

    name = "max_lps"
    sampling = "lps"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: PaddingMode = "zeros",
        hidden: int | None = None,
        temperature: float = 1.0,
        hard: bool = True,
    ) -> None:
        super().__init__(channels, stride, padding_mode, hidden, temperature, hard)
        self.before = DenseMaxFilter(padding_mode)
