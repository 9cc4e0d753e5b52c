"""evaluate and advise, killed with SIGKILL while they write to MLflow: the next command leaves no run unfinished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from poolbench.cli import main
from poolbench.plugins import import_code

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))
mlflow = pytest.importorskip("mlflow")

pytestmark = pytest.mark.slow
WRITES = ("create_run", "log_inputs", "create_logged_model", "log_batch", "finalize_logged_model", "log_outputs",
          "log_artifact", "set_terminated")  # fmt: skip
CLIENT = tuple((mlflow.MlflowClient, name) for name in WRITES)
NETWORK = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``command("evaluate", ...)`` on a network and random images, which end in the folder out."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETWORK)
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        Path("data", name).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("data", name, f"{number}.png"))

    def run(verb: str, *more: str, out: str = "out", uri: str = "") -> Result:
        store = ("--tracking-uri", uri) if uri else ()
        given = ("nets.py:net", "--data", "data", "--out", out, "--size", "8", "--device", "cpu")
        return CliRunner().invoke(main, [verb, *given, *store, *more], prog_name="poolbench")

    return run


def content_of(uri: str) -> tuple[list[Any], list[Any]]:
    """Return the runs and the logged models of a store."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("own models").experiment_id
    return list(client.search_runs([experiment])), list(client.search_logged_models([experiment]))


@pytest.mark.parametrize("verb", [("evaluate",), ("advise", "--epochs", "1", "--pools", "blur3")])
def test_what_a_killed_command_began_is_closed_by_the_next(command: Callable[..., Result], verb: Any) -> None:
    # Each in a process of its own: libraries keep connections to a database.
    assert disturbed.forked(lambda: command(*verb).exit_code) == 0
    count = disturbed.count_calls(CLIENT, lambda: command(*verb))
    killed = disturbed.chosen(count, 3)
    for number in killed:
        disturbed.kill_at(number, CLIENT, lambda: command(*verb))
    assert disturbed.forked(lambda: command(*verb).exit_code) == 0

    runs, models = content_of(f"sqlite:///{Path.cwd()}/out/mlflow.db")
    # The first call makes the run.
    assert Counter(run.info.status for run in runs) == {"FINISHED": 3, "FAILED": len(killed) - 1}
    finished = {run.info.run_id for run in runs if run.info.status == "FINISHED"}
    assert {model.source_run_id for model in models} == finished
    assert len({(model.source_run_id, model.name) for model in models}) == len(models)


def test_a_run_of_another_folder_goes_on(command: Callable[..., Result], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/shared.db"
    disturbed.kill_at(1, ((mlflow.MlflowClient, "log_artifact"),), lambda: command("evaluate", out="one", uri=uri))
    assert disturbed.forked(lambda: command("evaluate", out="two", uri=uri).exit_code) == 0
    runs, _ = content_of(uri)
    assert Counter(run.info.status for run in runs) == {"FINISHED": 1, "RUNNING": 1}
    assert disturbed.forked(lambda: command("evaluate", out="one", uri=uri).exit_code) == 0
    runs, models = content_of(uri)
    assert Counter(run.info.status for run in runs) == {"FINISHED": 2, "FAILED": 1}
    assert len(models) == 2
