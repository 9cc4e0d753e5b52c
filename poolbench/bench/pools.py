"""What each pooling operator costs, relative to max pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from poolbench.registry import pools

SHAPES = ((16, 64, 56, 56), (16, 128, 28, 28), (16, 256, 14, 14))
REFERENCE = "max"


@dataclass(frozen=True)
class PoolCost:
    """The cost of one pool on one map; ``forward`` and ``train`` are times relative to max pooling."""

    pool: str
    shape: tuple[int, ...]
    parameters: int
    flops: int
    forward_ms: float
    forward: float
    train_ms: float
    train: float
    peak_mb: float

    def as_row(self) -> dict[str, Any]:
        """Return the numbers as plain JSON types."""
        return asdict(self)


def bench_pools(
    device: str, names: Sequence[str] | None = None, shapes: Sequence[tuple[int, ...]] = SHAPES, repeats: int = 20
) -> Iterator[PoolCost]:
    """Yield the cost of each pool with stride 2 on random maps (b, c, h, w), shape by shape.

    Max pooling comes first in each shape, as all times are relative to its own in the same run.
    """
    import torch

    from poolbench.measures.cost import measure_cost
    from poolbench.pooling import create_pool

    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(0)
    others = [name for name in names or pools.names() if name != REFERENCE]
    for shape in shapes:
        # Behind a ReLU, as pools are.
        maps = torch.randn(shape, generator=generator).relu().to(device, memory_format=torch.channels_last)
        reference = None
        for name in (REFERENCE, *others):
            cost = measure_cost(create_pool(name, shape[1]).to(device), maps, repeats)
            reference = reference or cost
            yield PoolCost(
                name,
                tuple(shape),
                cost.parameters,
                cost.flops,
                cost.forward_ms,
                cost.forward_ms / reference.forward_ms,
                cost.train_ms,
                cost.train_ms / reference.train_ms,
                cost.peak_mb,
            )
