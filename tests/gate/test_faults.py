"""The planted faults: each changes what it says, leaves every cell its id, and can be undone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from poolbench import registry
from poolbench.core import DataLocation, UsageError
from poolbench.engine import loop
from poolbench.plugins import import_code
from poolbench.pooling import lowpass
from poolbench.registry import benchmarks
from poolbench.runner.attempt import Settings
from poolbench.runner.group import Silent
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.runner.workers import execute_in_workers

FOLDER = Path(__file__).parent / "faults"
patching = import_code(str(FOLDER / "_patching.py"))
table = import_code(str(FOLDER / "_table.py"))
cases = import_code(str(FOLDER / "_cases.py"))


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    """Undo what a test planted, also where it failed."""
    yield
    undo()


def undo() -> None:
    """Put poolbench back, and forget the fault, so that it can be planted again."""
    patching.undo()
    files = {str(fault.path) for fault in table.FAULTS}
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) in files]:
        del sys.modules[name]


def contents() -> dict[str, dict[str, object]]:
    """Return what every registry holds."""
    kinds = (registry.benchmarks, registry.datasets, registry.architectures, registry.pools, registry.heads)
    return {kind.kind: {name: kind.entry(name).target for name in kind.names()} for kind in kinds}


@pytest.mark.parametrize("name", [fault.name for fault in table.FAULTS])
def test_a_fault_changes_what_it_says_and_no_identity(name: str) -> None:
    probe, holds = cases.CASES[name]
    cells, registered = [cell.id for cell in plan(Selection(preset="smoke"))], contents()
    before = probe()
    assert not holds(before, before), "the check would pass without the fault"
    import_code(str(FOLDER / f"{name}.py"))
    assert holds(before, probe())
    assert [cell.id for cell in plan(Selection(preset="smoke"))] == cells
    assert contents() == registered
    undo()
    assert not holds(before, probe()), "the fault was not undone"


def test_the_table_lists_every_file_and_names_real_metrics_and_groups() -> None:
    assert sorted(fault.name for fault in table.FAULTS) == sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
    # pytest imports files of tests, which would plant the fault in all of them.
    assert not [fault.name for fault in table.FAULTS if fault.name.startswith("test") or fault.name.endswith("test")]
    cells = [cell for preset in ("quick", "nightly", "paper") for cell in plan(Selection(preset=preset, seeds=(0,)))]
    for fault in table.FAULTS:
        assert fault.path.read_text(encoding="utf-8").startswith('"""')
        assert fault.effects, fault.name
        for effect in fault.effects:
            assert effect.metric in {metric.name for metric in benchmarks.get(effect.benchmark)().metrics}
            assert any(effect.concerns(cell) for cell in cells), (fault.name, effect)


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        (loop, "learning_rates", "poolbench.engine.loop defines no function 'learning_rates'"),
        (loop, "learning_rate", "learning_rate of poolbench.engine.loop is defined in poolbench.engine.optimisation"),
        (lowpass.Blur3, "forward", "Blur3 defines no function 'forward'"),
        (lowpass, "dense_max", r"poolbench.pooling.lowpass.dense_max takes \['x'\], but its fault expects \['y'\]"),
    ],
)
def test_a_fault_without_its_target_cannot_be_planted(owner: Any, name: str, message: str) -> None:
    with pytest.raises(patching.MovedTarget, match=message):

        @patching.in_place_of(owner, name)
        def new(original: Callable[..., Tensor], y: Tensor) -> Tensor:
            return original(y)


def test_a_fault_that_rots_stops_the_run_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("poolbench.engine.optimisation.learning_rate")
    with pytest.raises(
        UsageError, match=r"learning_rate_halved.py' cannot be imported: MovedTarget: poolbench\.engine"
    ):
        import_code(str(FOLDER / "learning_rate_halved.py"))


def test_a_fault_reaches_the_worker_processes(ledger: Ledger) -> None:
    selection = Selection(("global_pooling",), "smoke", heads=("avg",), seeds=(0,), where={"variant": "corrected"})
    (cell,) = plan(selection)
    settings = Settings(DataLocation("data"), "cpu", plugins=(str(FOLDER / "last_batch_only.py"),))
    execute_in_workers([cell], ledger, settings, Silent(), ["cpu"])
    correct = ledger.record(cell.id).table("answers")["correct"]
    accuracy = ledger.result(cell).metrics["accuracy"]
    assert accuracy == pytest.approx(correct[-500:].mean())
    assert accuracy != pytest.approx(correct.mean())
