"""The table of pool costs: complete, and relative to max pooling of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from poolbench.pooling import list_pools

Load = Callable[[str], ModuleType]


def test_every_pool_is_timed_at_every_size_relative_to_max(load_script: Load) -> None:
    rows = list(load_script("pools").bench_pools("cpu", shapes=((2, 4, 8, 8), (2, 4, 6, 6)), repeats=1))
    for shape in ((2, 4, 8, 8), (2, 4, 6, 6)):
        costs = {row.pool: row for row in rows if row.shape == shape}
        assert sorted(costs) == list_pools()
        assert costs["max"].forward == costs["max"].train == 1
        for row in costs.values():
            assert row.forward == pytest.approx(row.forward_ms / costs["max"].forward_ms)
            assert row.train == pytest.approx(row.train_ms / costs["max"].train_ms)
    assert next(row for row in rows if row.pool == "strided_conv").parameters == 4 * 4 * 9 + 4


def test_the_script_prints_a_table_and_stores_it(
    load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("pools")
    script.main(["--pool", "avg,decimate", "--device", "cpu", "--json", str(tmp_path / "pools.json")])
    assert capsys.readouterr().out.count("\nmap ") == 3
    stored = json.loads((tmp_path / "pools.json").read_text())
    assert len(stored["pools"]) == 9
    assert stored["environment"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--pool", "avgg"], "did you mean 'avg'"), (["--device", "tpu"], "unknown device")]
)
def test_wrong_names_are_refused(
    load_script: Load, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        load_script("pools").main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err
