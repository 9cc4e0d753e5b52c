"""A work folder that was copied, as to another machine: it goes on, and the original is not touched."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

mlflow = pytest.importorskip("mlflow")

RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--out", "OUT")


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def places(out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the kind of each run of poolbench, and the folder of its artifacts."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    for run in client.search_runs(experiments, max_results=1000):
        yield run.data.tags["poolbench.kind"], Path(unquote(run.info.artifact_uri.removeprefix("file://")))


@pytest.mark.parametrize("command", [("sync", "--out", "OUT"), RUN], ids=["sync", "run"])
def test_a_copied_folder(work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    original, before = work.out, content(work.out)
    work.out = tmp_path / "a copy of 100 % é" / "out"
    shutil.copytree(original, work.out)
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert work.run("status", "--out", "OUT").stdout.splitlines()[1].split() == ["tiny", *"300001"]
    done = work.run(*command)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "without MLflow" not in done.output
    assert work.run("doctor", "--out", "OUT").exit_code == 0
    found = list(places(work.out))
    assert {"seed", "group", "trial", "study", "command"} == {kind for kind, _ in found}
    for kind, folder in found:
        assert folder.is_relative_to(work.out / "mlartifacts")
        assert kind not in ("group", "study") or any(path.is_file() for path in folder.rglob("*"))
    assert content(original) == before
    # The original is read as before.
    work.out = original
    assert work.run("sync", "--out", "OUT").exit_code == 0
    assert all(folder.is_relative_to(original) for _, folder in places(original))


def test_a_moved_folder_keeps_its_artifacts(work: Any) -> None:
    old = dict(content(work.out / "mlartifacts"))
    work.out = work.out.rename(work.folder / "moved")
    done = work.run("sync", "--out", "OUT")
    assert done.stderr.splitlines()[-1] == "MLflow is up to date; 0 runs of seeds are new"
    assert len(content(work.out / "mlartifacts")) == len(old)
    assert all(folder.is_relative_to(work.out) for _, folder in places(work.out))


def test_experiments_of_others_in_the_store_keep_their_places(work: Any, tmp_path: Path) -> None:
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{work.out}/mlflow.db")
    place = (tmp_path / "elsewhere").as_uri()
    experiment = client.create_experiment("of somebody else", place)
    run = client.create_run(experiment)
    work.out = Path(shutil.copytree(work.out, tmp_path / "copy"))
    assert work.run("sync", "--out", "OUT").exit_code == 0
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{work.out}/mlflow.db")
    assert client.get_experiment(experiment).artifact_location == place
    assert client.get_run(run.info.run_id).info.artifact_uri.startswith(place)
