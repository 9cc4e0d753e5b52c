"""The gate on networks that are really trained: it catches a planted fault, and other seeds are no alarm.

The same with all faults, other CPU kernels and the nightly preset is in docs/lab/gate.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest

from poolbench.analysis.frames import results_frame
from poolbench.analysis.gate import compare
from poolbench.analysis.incidents import Incident, judge
from poolbench.analysis.learning import judged
from poolbench.core import Cell, DataLocation
from poolbench.plugins import import_code
from poolbench.registry import benchmarks
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import Silent, execute
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan

FOLDER = Path(__file__).parent / "faults"
Run = Callable[[str, Sequence[int]], pd.DataFrame]


def cells(seeds: Sequence[int]) -> list[Cell]:
    where = {"variant": "corrected"}
    return plan(
        Selection(("global_pooling",), "smoke", heads=("avg",), seeds=tuple(seeds), train={"epochs": 2}, where=where)
    )


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Execute the cells in a ledger of their own; take back what was planted in the end."""

    def results(name: str, seeds: Sequence[int]) -> pd.DataFrame:
        ledger = Ledger(tmp_path / name).create()
        execute(cells(seeds), ledger, Settings(DataLocation("data"), "cpu"), Silent())
        return results_frame(judged(ledger.results()))

    yield results
    import_code(str(FOLDER / "_patching.py")).undo()


def incident(baseline: pd.DataFrame, night: pd.DataFrame) -> Incident:
    metrics = {"global_pooling": benchmarks.get("global_pooling")().metrics}
    (found,) = judge(compare(baseline, night, metrics, identity=False).incidents)
    return found


def test_a_planted_fault_is_caught_and_other_seeds_are_no_alarm(run: Run) -> None:
    baseline = run("baseline", range(4))
    assert incident(baseline, run("unchanged", range(4, 8))).verdict in ("fine", "inconclusive")
    import_code(str(FOLDER / "gradients_accumulate.py"))
    caught = incident(baseline, run("faulty", range(4)))
    assert caught.verdict == "regressed"
    assert [comparison.metric.name for comparison in caught.fallen] == ["accuracy"]
