"""Modules that surgery puts into a network: borders, the head, and pools that share a phase."""

from __future__ import annotations

import threading

from torch import Tensor, nn

from poolbench.core import Component
from poolbench.pooling import create_head
from poolbench.pooling.padding import PaddingMode, pad
from poolbench.pooling.polyphase import PolyphasePool

Widths = tuple[int, int, int, int]


class Border(nn.Module):
    """Pads maps (b, c, h, w) by (left, right, top, bottom); mode "zeros" pads with ``value``."""

    def __init__(self, widths: Widths, mode: PaddingMode, value: float = 0.0) -> None:
        super().__init__()
        self.widths, self.mode, self.value = widths, mode, value

    def forward(self, x: Tensor) -> Tensor:
        return pad(x, self.widths, self.mode, self.value)

    def extra_repr(self) -> str:
        return f"{self.widths}, {self.mode}"


class GlobalPool(nn.Module):
    """A head in place of a global pool, (b, c, h, w) -> (b, c), or (b, c, 1, 1) if not ``flat``.

    A head with several features per channel is projected back to c by a linear layer, so that the classifier
    after it keeps its shape and its pretrained weights.
    """

    def __init__(self, head: Component, channels: int, size: tuple[int, int], flat: bool) -> None:
        super().__init__()
        self.head, self.flat = create_head(head, channels, size=size), flat
        features = channels * self.head.feature_multiplier
        self.project = nn.Identity() if features == channels else nn.Linear(features, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.project(self.head(x))
        return pooled if self.flat else pooled[:, :, None, None]


class Phase:
    """The phase (b, stride^2) that one pool chose in the current forward pass.

    It is kept per thread: replicas of torch.nn.DataParallel run in threads and share this object. Copies and pickles
    start empty; pools that share a phase share its copy.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    def __reduce__(self) -> tuple[type[Phase], tuple[()]]:
        return Phase, ()

    def set(self, phase: Tensor) -> None:
        self._local.phase = phase

    def get(self, last: bool) -> Tensor:
        """Return the phase; ``last`` also forgets it. Raises RuntimeError where none was chosen."""
        phase: Tensor | None = getattr(self._local, "phase", None)
        if phase is None:
            raise RuntimeError("a pool follows the phase of another one that did not run before it in this pass")
        if last:
            self._local.phase = None
        return phase


class ChoosingPool(nn.Module):
    """A polyphase pool whose phase the pools with the same ``phase`` object use; output as that of the pool."""

    def __init__(self, pool: PolyphasePool, phase: Phase) -> None:
        super().__init__()
        self.pool, self.phase = pool, phase

    def forward(self, x: Tensor) -> Tensor:
        prepared = self.pool.prepare(x)
        chosen = self.pool.choose(prepared)
        self.phase.set(chosen)
        return self.pool.take(prepared, chosen)


class FollowingPool(nn.Module):
    """A polyphase pool that takes the phase that a ChoosingPool chose earlier in the same forward pass."""

    def __init__(self, pool: PolyphasePool, phase: Phase, last: bool) -> None:
        super().__init__()
        self.pool, self.phase, self.last = pool.follower(), phase, last

    def forward(self, x: Tensor) -> Tensor:
        return self.pool.take(self.pool.prepare(x), self.phase.get(self.last))
