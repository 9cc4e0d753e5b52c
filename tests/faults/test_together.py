"""Commands beside each other on one work folder, a worker without memory, and a folder that may only be read."""

from __future__ import annotations

import resource
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolbench import registry
from poolbench.core import Cell, Measurement
from poolbench.plugins import import_code
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench.tune.record import records

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))

RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--out", "OUT")
TUNE = ("tune", "tiny", "--preset", "smoke", "--pool", "max", "--trials", "2", "--trial-seeds", "2", "--out", "OUT")
SYNC = ("sync", "--out", "OUT")


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    """Run each action in a forked process, all at the same time, and return what they returned."""
    found: list[Any] = [None] * len(actions)

    def wait(place: int) -> None:
        found[place] = disturbed.forked(actions[place])

    threads = [threading.Thread(target=wait, args=(place,)) for place in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_launchers_a_tuner_and_a_sync(work: Any) -> None:
    mlflow = pytest.importorskip("mlflow")
    for cell in [*work.finished, work.unfinished]:
        (Ledger(work.out).record(cell.id)).set_aside()
    for path in work.out.glob("tuning/*"):
        path.rename(work.folder / path.name)
    disturbed.empty_store(work.out)

    def command(*arguments: str) -> Callable[[], Any]:
        def act() -> Any:
            done = work.run(*arguments)
            return done.exit_code, done.stderr, repr(done.exception)

        return act

    done = at_once([command(*RUN), command(*RUN), command(*TUNE), command(*SYNC)])
    for code, said, error in done:
        assert code == 0, (said, error)
        assert "without MLflow" not in said
        assert "Traceback" not in said
    ledger = Ledger(work.out)
    assert [result.status for result in ledger.results()] == ["finished"] * 4
    logs = [*work.out.glob("cells/*/events.jsonl"), *work.out.glob("tuning/*/cells/*/events.jsonl")]
    assert [path.read_text().count('"started"') for path in logs] == [1] * len(logs)
    (record,) = records(work.out)
    assert (len(record.trials), record.is_ended) == (2, True)

    def projected() -> Any:
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{work.out}/mlflow.db")
        experiments = [one.experiment_id for one in client.search_experiments()]
        runs = client.search_runs(experiments, max_results=1000)
        tags = Counter(run.data.tags["poolbench.kind"] for run in runs)
        cells = Counter(run.data.tags.get("poolbench.cell") for run in runs if "poolbench.cell" in run.data.tags)
        return dict(tags), dict(cells), {run.info.status for run in runs}

    kinds, cells, states = disturbed.forked(projected)
    # Before the next command: the last of several launchers completes MLflow.
    assert (kinds["seed"], kinds["group"], kinds["trial"], kinds["study"]) == (4, 2, 2, 1), kinds
    assert set(cells.values()) == {1}
    assert states <= {"FINISHED", "KILLED"}
    code, said, _ = disturbed.forked(command(*SYNC))
    assert (code, said.splitlines()[-1]) == (0, "MLflow is up to date; 0 runs of seeds are new")


@pytest.mark.parametrize("greedy", ["bytes", "numpy", "torch"])
def test_a_measure_that_takes_all_memory_fails_its_cell(
    cells: list[Cell], ledger: Ledger, tiny: Benchmark, monkeypatch: pytest.MonkeyPatch,
    run_cells: Callable[..., Any], greedy: str,
) -> None:  # fmt: skip
    """The reason is on record, and the cells after it find their memory again."""
    import numpy as np
    import torch

    take: dict[str, Callable[[], Any]] = {
        "bytes": lambda: bytearray(1 << 27),
        "numpy": lambda: np.ones(1 << 24),
        "torch": lambda: torch.ones(1 << 25),
    }

    def measure(cell: Cell, *arguments: Any) -> Measurement:
        if cell == cells[0]:
            taken = []
            while True:
                taken.append(take[greedy]())
        return tiny.measure(cell, *arguments)

    entry = registry.Entry("tiny", lambda: replace(tiny, measure=measure))
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", entry)

    def limited() -> Any:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), resource.RLIM_INFINITY))
        run_cells(cells[:2], ledger)
        return [(result.status, result.reason) for result in map(ledger.result, cells[:2])]

    failed, finished = disturbed.forked(limited)
    assert failed[0] == "failed"
    assert "emory" in failed[1]
    assert "\n" not in failed[1]
    assert finished == ("finished", "")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("status",), 0), (("plan", "tiny", "--preset", "smoke"), 0), (("claims",), 0), (("doctor",), 1),
        (("report", "--no-mlflow"), 2), (("report",), 2), (("sync",), 1), (RUN[:-2], 2), (TUNE[:-2], 2),
        (("doctor", "--fix"), 1),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else None,
)  # fmt: skip
def test_a_folder_that_may_only_be_read(
    work: Any, unprivileged: Callable[[], Any], command: tuple[str, ...], code: int
) -> None:
    (work.out / "cells" / work.finished[0].id / "layers.parquet").write_bytes(b"damaged")
    with unprivileged():
        for path in [work.out, *work.out.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        try:
            done = work.run(*command, "--out", "OUT")
        finally:
            for path in [work.out, *work.out.rglob("*")]:
                path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    if code == 2:
        assert "annot write" in done.stderr or "Permission denied" in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) <= 2, done.stderr


@pytest.mark.parametrize("obstacle", ["link", "dangling link", "file", "read-only", "write-only"])
@pytest.mark.parametrize("state", ["damaged", "unfinished"])
def test_a_cell_whose_folder_cannot_be_used_costs_itself(
    work: Any, unprivileged: Callable[[], Any], obstacle: str, state: str
) -> None:
    stuck, damaged = (work.unfinished if state == "unfinished" else work.finished[0]), work.finished[1]
    folder, elsewhere = work.out / "cells" / stuck.id, work.folder / "elsewhere"
    for cell in work.finished[:2]:
        (work.out / "cells" / cell.id / "layers.parquet").write_bytes(b"damaged")
    if obstacle in ("link", "dangling link", "file"):
        folder.rename(elsewhere)
        folder.write_text("no folder") if obstacle == "file" else folder.symlink_to(elsewhere)
    if obstacle == "dangling link":
        elsewhere.rename(work.folder / "gone")
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    mode = {"read-only": 0o555, "write-only": 0o333}.get(obstacle)
    with unprivileged():
        if mode:
            folder.chmod(mode)
        try:
            done = work.run(*RUN)
        finally:
            if mode:
                folder.chmod(0o755)
    assert done.exit_code == 1, (done.output, done.exception)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("not executed: ")]
    assert stuck.label in line
    assert str(folder) in line
    ledger = Ledger(work.out)
    assert ledger.result(damaged).status == "finished"
    assert ledger.result(stuck).status != "finished"
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before
