"""Every command that writes, killed with SIGKILL before its writes: the same command ends as if nothing had been.

A part of the moments is taken by default; POOLBENCH_MATRIX=all takes every one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolbench.plugins import import_code
from poolbench.runner.ledger import Ledger

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))
mlflow = pytest.importorskip("mlflow")

WRITES = (
    "create_experiment", "create_run", "log_batch", "set_tag", "set_terminated", "log_artifacts", "log_image",
    "log_inputs", "delete_run", "update_run", "set_experiment_tag",
)  # fmt: skip
CLIENT = tuple((mlflow.MlflowClient, name) for name in WRITES)
TUNE = ("tune", "tiny", "--preset", "smoke", "--pool", "avg", "--trials", "3", "--trial-seeds", "2", "--no-mlflow",
        "--out", "OUT")  # fmt: skip
SYNC = ("sync", "--out", "OUT")


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder by path, without partial files and locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".tmp", ".lock") and path.name != "lock"
    }


def finds_only_killed_commands(work: Any) -> None:
    """Check that what a kill left behind damages nothing: doctor names the command, and nothing else."""
    done = work.run("doctor", "--out", "OUT")
    wrong = [line for line in done.stdout.splitlines() if not line.startswith("  with --fix")]
    assert all("was killed" in line for line in wrong), done.output


def survives(
    work: Any, arguments: tuple[str, ...], places: Any, most: int, state: Callable[[], Any], reset: Callable[[], None]
) -> None:
    """Kill a command at each chosen call; afterwards it has to end with 0 and in the state of an undisturbed one."""

    def command() -> Any:
        return work.run(*arguments)

    def again() -> Any:
        # Libraries keep connections to a database: a process must not see it exchanged.
        done = command()
        assert done.exit_code == 0, (done.output, done.exception)
        return state()

    count = disturbed.count_calls(places, command)
    assert count > 3
    expected = disturbed.forked(state)
    for number in disturbed.chosen(count, most):
        reset()
        disturbed.kill_at(number, places, command)
        finds_only_killed_commands(work)
        assert disturbed.forked(again) == expected, f"killed before call {number} of {count}"


def restoring(path: Path, aside: Path) -> Callable[[], None]:
    """Return the function that brings a folder back into its present state."""
    shutil.copytree(path, aside)

    def reset() -> None:
        shutil.rmtree(path)
        shutil.copytree(aside, path)

    return reset


def test_report(work: Any, tmp_path: Path) -> None:
    shutil.rmtree(work.out / "report")
    reset = restoring(work.out, tmp_path / "before")

    def state() -> Any:
        written = files(work.out / "report")
        assert "report.html" in written
        return set(written), {name: written[name] for name in ("results.csv", "summary.csv")}

    survives(work, ("report", "--export", "--no-mlflow", "--out", "OUT"), disturbed.FILES, 8, state, reset)


def test_merge(work: Any, tmp_path: Path) -> None:
    """Into a folder that has one cell unfinished where the source has it finished: it is replaced."""
    target = work.folder / "merged"
    record = Ledger(work.out).record(work.finished[0].id)
    there = Ledger(target).create().record(record.cell_id).folder
    there.mkdir()
    for name in ("config.json", "events.jsonl"):
        shutil.copy(record.folder / name, there)
    reset = restoring(target, tmp_path / "before")

    survives(work, ("merge", "OUT", "--out", "MERGED"), disturbed.FILES, 15, lambda: files(target), reset)


def test_doctor(work: Any, tmp_path: Path) -> None:
    """Two damaged cells and a damaged command: they are set aside in the end, and no byte is lost."""
    for cell in work.finished[:2]:
        (work.out / "cells" / cell.id / "layers.parquet").write_bytes(b"damaged")
    work.file("out/invocations/*.json").write_bytes(b"damaged")
    reset = restoring(work.out, tmp_path / "before")
    before = set(files(work.out).values())

    def state() -> Any:
        left = files(work.out)
        assert before <= set(left.values())
        return {name for name in left if name.endswith("result.json") and not name.startswith("damaged")}

    def command() -> Any:
        return work.run("doctor", "--fix", "--out", "OUT")

    count = disturbed.count_calls(disturbed.FILES, command)
    expected = state()
    for number in disturbed.chosen(count, 15):
        reset()
        disturbed.kill_at(number, disturbed.FILES, command)
        done = command()
        assert done.exit_code == 0, (number, done.output)
        assert state() == expected, f"killed before call {number} of {count}"
        assert work.run("doctor", "--out", "OUT").exit_code == 0


def test_tune(work: Any, tmp_path: Path) -> None:
    reset = restoring(work.out, tmp_path / "before")

    def state() -> Any:
        """What was tried, in order, and what won. A killed trial is repeated with a new number."""
        found = [json.loads(path.read_text()) for path in sorted(work.out.glob("tuning/*/study.json"))]
        return [
            (
                study["id"], study["failure"], study["best"],
                [(one["parameters"], one["values"], one["state"]) for one in study["trials"]],
                [(one["parameters"], one["values"]) for one in study["confirmed"]],
            )
            for study in found
        ]  # fmt: skip

    survives(work, TUNE, disturbed.FILES, 8, state, reset)


def projected(out: Path) -> Any:
    """Return what MLflow shows, without ids: experiments, runs with parents and numbers, files of each run."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    found = []
    for experiment in client.search_experiments():
        runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id], max_results=1000)}
        for run in runs.values():
            parent = runs.get(run.data.tags.get("mlflow.parentRunId", ""))
            artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
            names = {path.relative_to(artifacts) for path in artifacts.rglob("*") if path.is_file()}
            figures = sorted(str(name) for name in names if name.parts[0] != "images")
            images = sum(name.parts[0] == "images" for name in names)
            found.append(
                (experiment.name, run.info.run_name, run.info.status, parent and parent.info.run_name,
                 dict(run.data.params), dict(run.data.metrics), figures, images)
            )  # fmt: skip
    return sorted(found, key=repr)


@pytest.mark.parametrize(("studies", "most"), [(False, 6), (True, 3)])
def test_sync(work: Any, tmp_path: Path, studies: bool, most: int) -> None:
    disturbed.empty_store(work.out)
    if studies:
        for name in ("cells", "invocations"):
            shutil.rmtree(work.out / name)
            (work.out / name).mkdir()
    else:
        shutil.rmtree(work.out / "tuning")
    reset = restoring(work.out, tmp_path / "before")
    survives(work, SYNC, CLIENT, most, lambda: projected(work.out), reset)


def test_a_store_that_is_being_created(work: Any, tmp_path: Path) -> None:
    """The first sync of a folder, killed while it puts the database in its place and writes the folder's id."""
    for name in ("tuning", "mlartifacts"):
        shutil.rmtree(work.out / name)
    for cell in [*work.finished[1:], work.unfinished]:
        shutil.rmtree(work.out / "cells" / cell.id)
    for number in (1, 2, 3):
        for name in ("mlflow.db", "folder.id"):
            (work.out / name).unlink(missing_ok=True)
        disturbed.kill_at(number, disturbed.FILES, lambda: work.run(*SYNC))
        assert (work.out / "mlflow.db").exists() == (number > 1)
        assert not (work.out / "folder.id").exists()
        finds_only_killed_commands(work)

    def again() -> Any:
        assert work.run(*SYNC).exit_code == 0
        return [row[1] for row in projected(work.out) if row[0] == "tiny"]

    assert sorted(disturbed.forked(again)) == ["max", "seed 0"]
    assert not list(work.out.glob(".mlflow.db.*"))
