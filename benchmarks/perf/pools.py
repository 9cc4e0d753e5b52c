"""Time every pool at three map sizes, relative to max pooling.

python benchmarks/perf/pools.py [--pool NAME,NAME] [--device DEVICE] [--json FILE]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from timing import Column, environment_line, parse, parser, print_header, print_row, store

from poolbench.core import UsageError
from poolbench.measures.cost import measure_cost
from poolbench.pooling import create_pool
from poolbench.registry import pools
from poolbench.runner.environment import environment

SHAPES = ((16, 64, 56, 56), (16, 128, 28, 28), (16, 256, 14, 14))
REFERENCE = "max"
TABLE = (
    Column("pool", -16),
    Column("parameters", 11),
    Column("MFLOPs", 9, ".1f"),
    Column("forward ms", 12, ".2f"),
    Column("x", 7, ".1f"),
    Column("train ms", 11, ".2f"),
    Column("x", 7, ".1f"),
    Column("peak MB", 9, ".1f"),
)


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


def bench_pools(
    device: str, names: Sequence[str] | None = None, shapes: Sequence[tuple[int, ...]] = SHAPES, repeats: int = 20
) -> Iterator[PoolCost]:
    """Yield the cost of each pool with stride 2 on random maps (b, c, h, w), shape by shape.

    Max pooling comes first for each shape. All times are relative to it.
    """
    torch.set_flush_denormal(True)
    generator = torch.Generator().manual_seed(0)
    others = [name for name in names or pools.names() if name != REFERENCE]
    for shape in shapes:
        # Pools usually follow a ReLU.
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one table per map size."""
    options = parser(__doc__)
    options.add_argument("--pool", metavar="NAME,NAME", help="pools to time (default: all)")
    parsed = parse(options, arguments)
    names = [name.strip() for name in parsed.pool.split(",")] if parsed.pool else pools.names()
    try:
        names = [pools.check(name) for name in names]
    except UsageError as error:
        options.error(str(error))
    print(f"{environment_line(environment(parsed.device))}; x = relative to {REFERENCE}")
    rows, shape = [], None
    for row in bench_pools(parsed.device, names):
        if row.shape != shape:
            shape = row.shape
            print(f"\nmap {'x'.join(map(str, shape))}")
            print_header(TABLE)
        times = (row.forward_ms, row.forward, row.train_ms, row.train)
        print_row(TABLE, (row.pool, row.parameters, row.flops / 1e6, *times, row.peak_mb))
        rows.append(asdict(row))
    store(parsed.json, parsed.device, {"pools": rows})


if __name__ == "__main__":
    main()
