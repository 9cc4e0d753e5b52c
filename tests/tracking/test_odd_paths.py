"""Work folders whose paths hold characters that mean something else in a URI."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from poolbench.core import Cell
from poolbench.runner.ledger import Ledger

mlflow = pytest.importorskip("mlflow")

from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable, default_uri  # noqa: E402
from poolbench_tracking.mlflow_store import Store  # noqa: E402


@pytest.mark.parametrize("name", ["a?b%41", "a#b \nc", "é?x=%2F&"])
def test_runs_and_artifacts_are_in_the_folder_and_nothing_is_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[Cell], run_cells: Callable[..., Any], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(Path(name)).create()
    run_cells(cells[:1], ledger)
    assert MlflowSink(ledger.folder).sync([ledger]) == 1
    # A later command.
    assert MlflowSink(ledger.folder).sync([ledger]) == 0
    assert os.listdir() == [name]

    with closing(sqlite3.connect(tmp_path / name / "mlflow.db")) as database:
        (count,) = database.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()
    client = mlflow.MlflowClient(tracking_uri=default_uri(ledger.folder))
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert count == len(runs) == 2
    (group,) = [run for run in runs if run.data.tags["poolbench.kind"] == "group"]
    assert "tables/layers.csv" in [file.path for file in client.list_artifacts(group.info.run_id, "tables")]
    fetched = Path(client.download_artifacts(group.info.run_id, "tables/layers.csv", str(tmp_path)))
    assert fetched.read_bytes() == next((tmp_path / name / "mlartifacts").rglob("layers.csv")).read_bytes()


@pytest.mark.parametrize("name", ["a?b", os.fsdecode(b"bad\xff")])
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from sqlalchemy.engine import url

    # As SQLAlchemy 2.0 does.
    monkeypatch.setattr(url, "unquote", lambda text: text)
    folder = tmp_path / name
    folder.mkdir()
    with pytest.raises(TrackingUnavailable, match="choose another --out"):
        Store(folder)
    assert list(tmp_path.rglob("*")) == [folder]
