"""One cell: it goes on from its checkpoint, whatever killed it, and trains no epoch twice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

from poolbench import registry
from poolbench.core import Cell, Component, DataLocation, MissingData, Result, TrainConfig, UsageError
from poolbench.engine.loop import Training
from poolbench.files import StorageError
from poolbench.pooling.polyphase import AdaptivePolyphase
from poolbench.runner import attempt
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups, run_cells
from poolbench.runner.gpu import gpu_state
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark

Run = Callable[..., Any]

EPOCHS = 5
# Every stream is in use: fresh samples, augmentation, a pool that draws in training; a schedule and a momentum.
NOISY = Cell(
    "shift_robustness", Component("shapes", {"canvas": 48, "samples": 64, "test_samples": 40}),
    Component("shape_net", {"num_pooling": 1}), Component("stochastic"), Component("avg"), "default", 3,
    TrainConfig(EPOCHS, batch_size=16, augment=("rotation", "shift"), optimizer="sgd", schedule="one_cycle"),
    measure={"objects": 16, "few": 8},
)  # fmt: skip
SETTINGS = Settings(DataLocation("data"), "cpu", checkpoint_seconds=0)


def execute(cell: Cell, ledger: Ledger, settings: Settings = SETTINGS) -> tuple[Result, list[float]]:
    """Return what became of the cell and the epochs that were trained for it."""
    trained: list[float] = []
    record = ledger.record(cell.id)
    run_cells([cell], [record], settings, lambda cell, row: trained.append(row["epoch"]))
    return ledger.result(cell), trained


def weights(ledger: Ledger, cell: Cell) -> dict[str, torch.Tensor]:
    content = (ledger.record(cell.id).folder / "weights.pt").read_bytes()
    state: dict[str, torch.Tensor] = torch.load(BytesIO(content), weights_only=True)
    return state


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_time(result: Result) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "time"} for row in result.history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("undisturbed")).create()
    result, trained = execute(NOISY, ledger)
    assert result.status == "finished", result.traceback
    assert trained == [1, 2, 3, 4, 5]
    return ledger


VICTIM = """
import json, os, signal, sys
from pathlib import Path
import torch
from poolbench.core import Cell, DataLocation
from poolbench.data.shapes import ShapeStream
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import run_cells
from poolbench.runner.ledger import Ledger

torch.set_num_threads(1)
out, moment, countdown, config = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
place = os if moment in ("fsync", "replace") else ShapeStream
real = getattr(place, moment)

def fatal(*arguments):
    global countdown
    countdown -= 1
    if not countdown:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)

cell = Cell.from_config(config)
record = Ledger(out).create().record(cell.id)
setattr(place, moment, fatal)
run_cells([cell], [record], Settings(DataLocation("data"), "cpu", checkpoint_seconds=0), lambda cell, row: None)
"""


def kill_in_the_middle(ledger: Ledger, cell: Cell, moment: str, count: int) -> None:
    """Execute the cell in a process that dies by SIGKILL at the count-th call of a function."""
    arguments = [str(ledger.folder), moment, str(count), json.dumps(cell.config())]
    done = subprocess.run([sys.executable, "-c", VICTIM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("moment", "count", "epochs_left"),
    [
        # Calls of fsync: configuration, started, then one for each epoch's event and one for its checkpoint.
        ("fsync", 3, [1, 2, 3, 4, 5]),  # in the first epoch's event
        ("render", 3, [1, 2, 3, 4, 5]),  # in the middle of the first epoch
        ("fsync", 6, [2, 3, 4, 5]),  # the second epoch is logged, its checkpoint half-written
        ("replace", 4, [3, 4, 5]),  # the third checkpoint is written and not yet in its place
        ("render", 4 * 3 + 2, [4, 5]),  # in the middle of the fourth epoch
        ("fsync", 12, [5]),  # in the last checkpoint
        ("fsync", 13, []),  # trained and measured, while the first file of the result is written
    ],
)
def test_a_killed_cell_goes_on_and_ends_as_if_nothing_had_been(
    ledger: Ledger, undisturbed: Ledger, moment: str, count: int, epochs_left: list[float]
) -> None:
    kill_in_the_middle(ledger, NOISY, moment, count)
    assert ledger.result(NOISY).status == "pending"
    result, trained = execute(NOISY, ledger)
    assert result.status == "finished", result.traceback
    assert trained == epochs_left
    assert result.facts.get("resumed_after", 0) == EPOCHS - len(epochs_left)
    assert equal(weights(ledger, NOISY), weights(undisturbed, NOISY))
    assert without_time(result) == without_time(undisturbed.result(NOISY))
    times = [row["time"] for row in result.history]
    assert times == sorted(times)
    assert {path.name for path in ledger.record(NOISY.id).folder.iterdir()} == {
        "config.json", "events.jsonl", "lock", "result.json", "weights.pt", "arrays.npz",
        "answers.parquet", "conditions.parquet", "decisions.parquet", "sensitivity.parquet",
    }  # fmt: skip


def test_a_cell_that_is_killed_again_and_again_gets_there(ledger: Ledger, undisturbed: Ledger) -> None:
    # Two fsyncs at the start or for "resumed", then two per epoch: each process gets one epoch further.
    for count in (6, 6, 5):
        kill_in_the_middle(ledger, NOISY, "fsync", count)
    result, trained = execute(NOISY, ledger)
    assert trained == [4, 5]
    assert without_time(result) == without_time(undisturbed.result(NOISY))
    assert equal(weights(ledger, NOISY), weights(undisturbed, NOISY))


def test_a_failed_measure_does_not_cost_the_training(
    ledger: Ledger, undisturbed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = registry.benchmarks._entries["shift_robustness"]

    def broken(*arguments: object) -> Any:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        benchmark = replace(entry.target(), measure=broken)
        patch.setitem(registry.benchmarks._entries, "shift_robustness", replace(entry, target=lambda: benchmark))
        # The last checkpoint does not wait for its time.
        result, trained = execute(NOISY, ledger, replace(SETTINGS, checkpoint_seconds=1e9))
    assert (result.status, result.reason, len(trained)) == ("failed", "RuntimeError: broken on purpose", EPOCHS)
    result, trained = execute(NOISY, ledger)
    assert (result.status, trained) == ("finished", [])
    assert result.facts["seconds_fit"] > 0
    assert len(result.history) == EPOCHS
    assert equal(weights(ledger, NOISY), weights(undisturbed, NOISY))
    expected = undisturbed.result(NOISY).metrics
    assert {k: v for k, v in result.metrics.items() if not k.startswith("cost_")} == {
        k: v for k, v in expected.items() if not k.startswith("cost_")
    }


@pytest.fixture
def half_trained(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger in which training stopped in the third epoch."""
    real = Training.run_epoch

    def interrupted(training: Training) -> Any:
        if training.epoch == 2:
            raise KeyboardInterrupt
        return real(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute(NOISY, ledger)
    return ledger


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("poolbench.engine.checkpoint.torch.__version__", "1.0", "the checkpoint is of torch .*, this is 1.0"),
        ("poolbench.engine.checkpoint.__version__", "0.0", "the checkpoint is of poolbench .*, this is 0.0"),
    ],
)
def test_a_checkpoint_of_another_version_is_left_with_a_note(
    half_trained: Ledger, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    monkeypatch.setattr(name, value)
    result, trained = execute(NOISY, half_trained)
    assert trained == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
    assert re.fullmatch(reason, result.facts["from_the_start"])


def test_a_checkpoint_of_another_cell_is_not_taken(half_trained: Ledger) -> None:
    other = replace(NOISY, seed=4)
    folder = half_trained.record(other.id).folder
    folder.mkdir()
    (folder / "checkpoint.pt").write_bytes((half_trained.record(NOISY.id).folder / "checkpoint.pt").read_bytes())
    assert len(execute(other, half_trained)[1]) == EPOCHS


@pytest.mark.parametrize(
    "change",
    [None, {"state": {}}, {"state": {"epoch": "2"}}, {"rows": [1]}, {"rows": None}, {"origin": [1]}, {"more": 1}],
    ids=str,
)
def test_a_damaged_checkpoint_is_left_with_a_note(half_trained: Ledger, change: dict[str, Any] | None) -> None:
    path = half_trained.record(NOISY.id).folder / "checkpoint.pt"
    (path.parent / ".x.tmp").mkdir()  # a folder where files that were never renamed are deleted
    if change is None:
        path.write_bytes(path.read_bytes()[:1000])
    else:
        torch.save({**torch.load(path, weights_only=True), **change}, path)
    result, trained = execute(NOISY, half_trained)
    assert (result.status, len(trained)) == ("finished", EPOCHS)
    assert result.facts["from_the_start"].startswith("the checkpoint cannot be read")


def test_a_full_disk_leaves_the_earlier_checkpoint(
    ledger: Ledger, undisturbed: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, iter(range(100))

    def full(descriptor: int) -> None:
        if next(calls) == 7:  # the third checkpoint
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"cannot write to .*No space left on device; free space"):
            execute(NOISY, ledger)
    result, trained = execute(NOISY, ledger)
    assert trained == [3, 4, 5]
    assert equal(weights(ledger, NOISY), weights(undisturbed, NOISY))
    assert without_time(result) == without_time(undisturbed.result(NOISY))


@pytest.mark.parametrize(("seconds", "written"), [(0.0, [1, 2, 3, 4, 5]), (1e9, [5])])
def test_checkpoints_wait_for_their_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seconds: float, written: list[int]
) -> None:
    from poolbench.engine import checkpoint
    from poolbench.engine.checkpoint import Checkpoint, pack

    seen: list[int] = []

    def noting(content: Checkpoint, *arguments: str) -> bytes:
        seen.append(content.epoch)
        return pack(content, *arguments)

    monkeypatch.setattr(checkpoint, "pack", noting)
    execute(NOISY, ledger, replace(SETTINGS, checkpoint_seconds=seconds))
    assert seen == written


def test_slow_checkpoints_become_rare(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolbench.engine import checkpoint
    from poolbench.engine.checkpoint import Checkpoint, pack

    seen: list[int] = []

    def noting(content: Checkpoint, *arguments: str) -> bytes:
        seen.append(content.epoch)
        return pack(content, *arguments)

    monkeypatch.setattr(checkpoint, "pack", noting)
    monkeypatch.setattr(checkpoint, "MIN_TRAIN_TO_SAVE_RATIO", 1e9)
    execute(NOISY, ledger, replace(SETTINGS, checkpoint_seconds=1e-9))
    assert seen == [1, EPOCHS]


def test_deterministic_kernels_are_asked_for_as_long_as_they_are_wanted(ledger: Ledger, undisturbed: Ledger) -> None:
    asked: list[bool] = []
    record = ledger.record(NOISY.id)
    run_cells(
        [NOISY],
        [record],
        replace(SETTINGS, deterministic=True),
        lambda cell, row: asked.append(torch.are_deterministic_algorithms_enabled()),
    )
    assert asked == [True] * EPOCHS
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    # A CPU has no others.
    assert equal(weights(ledger, NOISY), weights(undisturbed, NOISY))
    execute(replace(NOISY, train=replace(NOISY.train, epochs=1)), ledger)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_diverged_training_says_when(ledger: Ledger) -> None:
    hopeless = replace(NOISY, train=replace(NOISY.train, learning_rate=1e30))
    result, trained = execute(hopeless, ledger)
    assert result.status == "failed"
    assert "TrainingDiverged: the training loss is" in result.reason
    assert len(trained) < EPOCHS
    assert Path(ledger.record(hopeless.id).folder / "result.json").exists() is False


CALM = replace(NOISY, pool=Component("max"))
TOGETHER = [replace(CALM, seed=seed) for seed in (3, 4, 5)]
STACKED = replace(SETTINGS, replicas=3)


def execute_together(
    cells: list[Cell], ledger: Ledger, settings: Settings = STACKED
) -> tuple[list[Result], list[tuple[int, float]]]:
    """Return what became of the cells, and (seed, epoch) in the order of training."""
    trained: list[tuple[int, float]] = []
    records = [ledger.record(cell.id) for cell in cells]
    run_cells(cells, records, settings, lambda cell, row: trained.append((cell.seed, row["epoch"])))
    return [ledger.result(cell) for cell in cells], trained


def test_groups_are_cells_that_differ_by_seed_alone() -> None:
    others = [replace(cell, pool=Component("avg")) for cell in TOGETHER]
    mixed = [cell for pair in zip(TOGETHER, others, strict=True) for cell in pair]
    assert replica_groups(mixed, STACKED) == [TOGETHER, others]
    assert replica_groups(mixed, replace(SETTINGS, replicas=2)) == [TOGETHER[:2], TOGETHER[2:], others[:2], others[2:]]
    # On a CPU stacking does not pay, on a GPU it does.
    assert replica_groups(mixed, SETTINGS) == [[cell] for cell in [*TOGETHER, *others]]
    assert replica_groups(mixed, replace(SETTINGS, device="cuda:0")) == [TOGETHER, others]


def test_replicas_are_cells_like_any_other(ledger: Ledger, tmp_path: Path) -> None:
    results, trained = execute_together(TOGETHER, ledger)
    assert [result.status for result in results] == ["finished"] * 3, results[0].traceback
    assert trained == [(seed, epoch) for epoch in range(1, EPOCHS + 1) for seed in (3, 4, 5)]
    alone = Ledger(tmp_path / "alone").create()
    for cell, result in zip(TOGETHER, results, strict=True):
        expected, _ = execute(cell, alone)
        assert result.facts["replicas"] == 3
        assert expected.facts["replicas"] == 1
        assert len(result.history) == EPOCHS
        assert result.metrics["accuracy"] == pytest.approx(expected.metrics["accuracy"], abs=1 / 40)
        states = weights(ledger, cell), weights(alone, cell)
        assert states[0].keys() == states[1].keys()
        assert all(torch.allclose(states[0][name], states[1][name], rtol=0, atol=1e-5) for name in states[0])
        assert not (ledger.record(cell.id).folder / "checkpoint.pt").exists()


@pytest.mark.parametrize("branches", [True, False])
def test_networks_that_vmap_does_not_take_train_one_after_another(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, branches: bool
) -> None:
    take = AdaptivePolyphase.take

    def branching(pool: AdaptivePolyphase, x: torch.Tensor, phase: torch.Tensor) -> torch.Tensor:
        return take(pool, x if x.sum() > 0 else -x, phase)

    if branches:
        monkeypatch.setattr(AdaptivePolyphase, "take", branching)
    cells = [replace(cell, pool=Component("aps")) for cell in TOGETHER[:2]]
    results, trained = execute_together(cells, ledger)
    assert [result.status for result in results] == ["finished"] * 2
    assert [result.facts["replicas"] for result in results] == [1 if branches else 2] * 2
    assert (trained[1] == (3, 2)) == branches


def test_one_replica_that_diverges_does_not_stop_the_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolbench import engine

    real = engine.build_model

    def build(cell: Cell, *arguments: Any) -> torch.nn.Module:
        model = real(cell, *arguments)
        if cell.seed == 4:
            with torch.no_grad():
                next(model.parameters()).fill_(float("nan"))
        return model

    monkeypatch.setattr(engine, "build_model", build)
    results, trained = execute_together(TOGETHER, ledger)
    assert [result.status for result in results] == ["finished", "failed", "finished"]
    assert results[1].reason == "TrainingDiverged: the training loss is nan in epoch 1"
    assert [seed for seed, epoch in trained if epoch == EPOCHS] == [3, 5]
    assert results[0].facts["replicas"] == 3


def test_a_failed_measure_of_one_replica_leaves_the_others(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = registry.benchmarks._entries["shift_robustness"]

    def broken(cell: Cell, *arguments: Any) -> Any:
        if cell.seed == 4:
            raise RuntimeError("broken on purpose")
        return entry.target().measure(cell, *arguments)

    benchmark = replace(entry.target(), measure=broken)
    with monkeypatch.context() as patch:
        patch.setitem(registry.benchmarks._entries, "shift_robustness", replace(entry, target=lambda: benchmark))
        results, _ = execute_together(TOGETHER, ledger)
    assert [result.status for result in results] == ["finished", "failed", "finished"]
    again, trained = execute_together(TOGETHER[1:2], ledger)
    assert (again[0].status, trained) == ("finished", [])


def test_a_group_too_large_for_the_memory_is_halved(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = Training.run_epoch, []

    def limited(training: Training) -> Any:
        sizes.append(len(training.orders))
        if len(training.orders) > 2:
            raise torch.OutOfMemoryError("out of memory on purpose")
        return real(training)

    monkeypatch.setattr(Training, "run_epoch", limited)
    cells = [replace(CALM, seed=seed, train=replace(CALM.train, epochs=1)) for seed in range(5)]
    results, _ = execute_together(cells, ledger, replace(SETTINGS, replicas=5))
    assert [result.status for result in results] == ["finished"] * 5
    assert sizes == [5, 2, 2, 1]
    assert [result.facts["replicas"] for result in results] == [2, 2, 2, 2, 1]
    assert [len(result.history) for result in results] == [1] * 5


def test_one_network_too_large_for_the_memory_fails_with_its_reason(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(training: Training) -> Any:
        raise torch.OutOfMemoryError("out of memory on purpose")

    monkeypatch.setattr(Training, "run_epoch", full)
    results, _ = execute_together(TOGETHER, ledger)
    assert {result.status for result in results} == {"failed"}
    assert {result.reason for result in results} == {"OutOfMemoryError: out of memory on purpose"}


def test_replicas_stopped_at_different_epochs_go_on_and_end_as_if_nothing_had_been(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while the second of three checkpoints is written: one is an epoch ahead, two are not."""
    from poolbench.runner.cell_record import CellRecord

    whole = Ledger(tmp_path / "whole").create()
    execute_together(TOGETHER, whole)
    real, calls = CellRecord.save_checkpoint, iter(range(100))

    def interrupted(record: CellRecord, content: bytes) -> None:
        if next(calls) == 4:
            raise KeyboardInterrupt
        real(record, content)

    with monkeypatch.context() as patch:
        patch.setattr(CellRecord, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute_together(TOGETHER, ledger)
    results, trained = execute_together(TOGETHER, ledger)
    assert [result.facts["replicas"] for result in results] == [1, 2, 2]
    assert [result.facts["resumed_after"] for result in results] == [2, 1, 1]
    assert sorted(trained) == [(3, 3), (3, 4), (3, 5), *((seed, epoch) for seed in (4, 5) for epoch in (2, 3, 4, 5))]
    for cell, result in zip(TOGETHER, results, strict=True):
        assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
        states = weights(ledger, cell), weights(whole, cell)
        assert all(torch.allclose(states[0][name], states[1][name], rtol=0, atol=1e-5) for name in states[0])


def test_replicas_stopped_together_go_on_bit_for_bit(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = [replace(NOISY, seed=seed) for seed in (3, 4, 5)]
    whole = Ledger(tmp_path / "whole").create()
    execute_together(noisy, whole)
    real = Training.run_epoch

    def interrupted(training: Training) -> Any:
        if training.epoch == 2:
            raise KeyboardInterrupt
        return real(training)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "run_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            execute_together(noisy, ledger)
    results, trained = execute_together(noisy, ledger)
    assert len(trained) == 3 * 3
    for cell, result in zip(noisy, results, strict=True):
        assert equal(weights(ledger, cell), weights(whole, cell))
        assert without_time(result) == without_time(whole.result(cell))


@pytest.mark.parametrize(("error", "status"), [(MissingData, "skipped"), (UsageError, "failed")])
def test_an_error_of_loading_without_a_message_has_a_reason(
    tiny: Benchmark, cells: list[Cell], ledger: Ledger, monkeypatch: pytest.MonkeyPatch, run_cells: Callable[..., Any],
    error: type[Exception], status: str,
) -> None:  # fmt: skip
    def load(*arguments: object) -> None:
        raise error

    benchmark = replace(tiny, load=load)  # type: ignore[arg-type]
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", registry.Entry("tiny", lambda: benchmark))
    (result,) = run_cells(cells[:1], ledger).results
    assert (result.status, result.reason) == (status, error.__name__)


def test_the_state_of_the_gpu_is_recorded_with_every_epoch(
    ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "gpu_state", lambda device: {"gpu_memory_mb": 12.0})
    record = ledger.record(cells[0].id)
    run_cells(cells[:1], [record], Settings(DataLocation("data"), "cpu"), lambda *_: None)
    history = ledger.result(cells[0]).history
    assert [(row["epoch"], row["gpu_memory_mb"]) for row in history] == [(1, 12.0), (2, 12.0)]
    assert gpu_state("cpu") == {}
