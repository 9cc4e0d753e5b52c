"""Polyphase sampling: keep one of the stride^2 interleaved grids of a map, chosen by what the map holds.

A fixed grid makes the output depend on where the object lies modulo the stride. A grid chosen by content
moves with the object: with circular padding, and sides that the stride divides, every circular shift of the
input shifts the output (Chaman & Dokmanic 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling.lowpass import BinomialBlur
from poolbench.pooling.padding import PaddingMode
from poolbench.pooling.windows import widen
from poolbench.registry import pools


class PolyphasePool(nn.Module):
    """(b, c, h, w) -> (b, c, h/stride, w/stride): ``take(prepare(x), choose(prepare(x)))``.

    Component i * stride + j of a map x is x[..., i::stride, j::stride]. The three steps are apart so that
    the skip connection of a residual block can take the component that its main branch chose::

        main, skip = pool.prepare(main), skip_pool.prepare(skip)
        phase = pool.choose(main)
        out = pool.take(main, phase) + skip_pool.take(skip, phase)
    """

    name: str

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def score(self, components: Tensor) -> Tensor:
        """Return the scores (b, stride^2) of components (b, c, stride^2, h/stride, w/stride); the largest wins.

        The score of a component must not change when the component is rolled.
        """
        raise NotImplementedError

    def prepare(self, x: Tensor) -> Tensor:
        """Return x (b, c, h, w), filtered; what ``choose`` and ``take`` work on."""
        return x

    def choose(self, x: Tensor) -> Tensor:
        """Return weights (b, stride^2) of the components of a prepared map: one 1 per image."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            best = _winners(self.score(self.components(x)), x, self.stride)
        return F.one_hot(best, self.stride**2).to(x.dtype)

    def take(self, x: Tensor, phase: Tensor) -> Tensor:
        """Return the weighted sum (b, c, h/stride, w/stride) of the components of a prepared map."""
        return (self.components(x) * phase[:, None, :, None, None].to(x.dtype)).sum(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prepare(x)
        return self.take(x, self.choose(x))

    def follower(self) -> PolyphasePool:
        """Return the pool of a skip connection: it filters like this one and makes no choice of its own."""
        return self

    def components(self, x: Tensor) -> Tensor:
        """Return all components, (b, c, stride^2, h/stride, w/stride); UsageError where they differ in size."""
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride:
            raise UsageError(
                f"pool '{self.name}' needs a map whose sides its stride {self.stride} divides, got {height}x{width}; "
                "use images of 32x32 or fewer halvings"
            )
        components: Tensor = F.pixel_unshuffle(x, self.stride).unflatten(1, (x.shape[1], self.stride**2))
        return components


def _winners(scores: Tensor, x: Tensor, stride: int) -> Tensor:
    """Return the index (b,) of the largest of scores (b, stride^2); ties are broken by what x (b, c, h, w) holds.

    The lowest index would not do: the components of a mirror-symmetric image have equal norms in pairs, and
    which of a pair comes first depends on where the image lies.
    """
    # Sums over a rolled map differ in their last bits, and so does what convolutions make of one.
    tolerance = 1e-12 if x.dtype == torch.float64 else 1e-5
    best = _largest(scores, tolerance)
    tied = best.sum(1) > 1
    if tied.any():
        best[tied] = _largest(_fingerprints(x[tied], stride) * best[tied], tolerance)
    return best.to(torch.uint8).argmax(1)


def _largest(scores: Tensor, tolerance: float) -> Tensor:
    """Return where scores (b, n) equal the largest of their row, up to a relative tolerance."""
    return scores >= scores.amax(1, keepdim=True) - tolerance * scores.abs().amax(1, keepdim=True)


def _fingerprints(x: Tensor, stride: int) -> Tensor:
    """Return a positive number per component of x (b, c, h, w), (b, stride^2), that tells its place in the image.

    It is the mean of exp(k . x seen from y) over the pixels y of the component, where "seen from y" rolls y to
    the origin and k is a fixed random image. Rolling x only reorders the mean. Exponentials with different
    exponents are linearly independent as functions of k, so for almost every k two components are equal here
    only if the image seen from one is the image seen from the other, rolled by a multiple of the stride. Then
    the image repeats itself and both components are the same up to a roll: it does not matter which is kept.
    """
    centred = x.double() - x.double().mean(dim=(-2, -1), keepdim=True)
    norm = centred.square().sum(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    key = torch.randn(x.shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(x.device)
    products = torch.fft.rfft2(centred / norm) * torch.fft.rfft2(key).conj()
    views = torch.fft.irfft2(products.sum(1, keepdim=True), s=x.shape[-2:])
    return F.pixel_unshuffle(views, stride).exp().mean(dim=(-2, -1))


@pools.register("aps", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False)
class AdaptivePolyphase(PolyphasePool):
    """The polyphase component with the largest L2 norm over all channels."""

    name = "aps"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(stride)

    def score(self, components: Tensor) -> Tensor:
        return widen(components).square().sum(dim=(1, 3, 4), dtype=torch.float64)


@pools.register("aps_blur3", reference="Chaman & Dokmanic 2021", shift_equivariant=True, learnable=False, random=False)
class BlurredAdaptivePolyphase(AdaptivePolyphase):
    """Binomial 3x3 low-pass, then the polyphase component with the largest L2 norm."""

    name = "aps_blur3"

    def __init__(self, channels: int, stride: int = 2, padding_mode: PaddingMode = "zeros") -> None:
        super().__init__(channels, stride, padding_mode)
        self.blur = BinomialBlur(channels, 3, 1, padding_mode)

    def prepare(self, x: Tensor) -> Tensor:
        out: Tensor = self.blur(x)
        return out


@pools.register("lps", reference="Rojas-Gomez et al. 2022", shift_equivariant=True, learnable=True, random=True)
class LearnablePolyphase(PolyphasePool):
    """The polyphase component that a small circular CNN scores highest.

    In training the component is drawn by the Gumbel trick at ``temperature`` (set the attribute to anneal
    it); gradients flow as through the softmax. ``hard=False`` mixes the components by the softmax itself, which
    the network then meets for the first time as a choice in eval mode.
    """

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
            raise UsageError(f"pool 'lps' needs a temperature > 0, got {temperature}")
        self.temperature, self.hard = temperature, hard
        hidden = hidden or channels
        # Circular whatever the network pads with: the score may not change when the component is rolled.
        self.conv1 = nn.Conv2d(channels, hidden, 3, padding=1, padding_mode="circular")
        # A bias here would be the same for all components.
        self.conv2 = nn.Conv2d(hidden, 1, 3, padding=1, padding_mode="circular", bias=False)

    def score(self, components: Tensor) -> Tensor:
        """Return the mean over each component of conv-ReLU-conv."""
        each = components.transpose(1, 2).flatten(0, 1).to(self.conv1.weight.dtype)
        scores: Tensor = self.conv2(F.relu(self.conv1(each))).mean(dim=(1, 2, 3)).unflatten(0, (-1, self.stride**2))
        return scores

    def follower(self) -> PolyphasePool:
        """Return a pool without the CNN, whose weights would never see a gradient."""
        follower = PolyphasePool(self.stride)
        follower.name = self.name
        return follower

    def choose(self, x: Tensor) -> Tensor:
        """Return weights (b, stride^2): one 1 per image, in training with ``hard=False`` a softmax."""
        if not self.training:
            return super().choose(x)
        with torch.autocast(x.device.type, enabled=False):
            scores = widen(self.score(self.components(x)))
            return F.gumbel_softmax(scores, self.temperature, hard=self.hard).to(x.dtype)
