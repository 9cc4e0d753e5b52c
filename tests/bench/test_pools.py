"""The table of operators: complete, and relative to max pooling of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolbench.bench.pools import bench_pools
from poolbench.pooling import list_pools


def test_every_pool_is_timed_at_every_size_relative_to_max() -> None:
    rows = list(bench_pools("cpu", shapes=((2, 4, 8, 8), (2, 4, 6, 6)), repeats=1))
    for shape in ((2, 4, 8, 8), (2, 4, 6, 6)):
        own = {row.pool: row for row in rows if row.shape == shape}
        assert sorted(own) == list_pools()
        assert own["max"].forward == own["max"].train == 1
        for row in own.values():
            assert row.forward == pytest.approx(row.forward_ms / own["max"].forward_ms)
            assert row.train == pytest.approx(row.train_ms / own["max"].train_ms)
    assert next(row for row in rows if row.pool == "strided_conv").parameters == 4 * 4 * 9 + 4


def test_the_command_prints_a_table_and_stores_it(tmp_path: Path, poolbench: Callable[..., Any]) -> None:
    done = poolbench("bench", "pools", "--pool", "avg,decimate", "--device", "cpu", "--json", "pools.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\nmap ") == 3
    stored = json.loads((tmp_path / "pools.json").read_text())
    assert len(stored["pools"]) == 9
    assert stored["environment"]["device"] == "cpu"
    assert "did you mean 'avg'" in poolbench("bench", "pools", "--pool", "avgg").stderr
